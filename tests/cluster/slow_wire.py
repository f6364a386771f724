#!/usr/bin/env python3
"""slow_wire.py LEFT RIGHT DELAY_S RATE_BYTES_PER_S LOSS SEED: a wire between two network interfaces that delays what passes,
carries only so much a second, and loses a part of it. Ends with SIGTERM, and then prints what passed, as JSON.

Frames keep the kernel's own header about checksums and segmentation, so that nothing need be switched off on the interfaces."""

import heapq
import json
import random
import select
import signal
import socket
import sys
import time

ALL_PROTOCOLS = 3
SOL_PACKET, PACKET_VNET_HDR = 263, 15
PACKET_OUTGOING = 4
FRAME_MAX = 1 << 17
WAITING_MAX = 1000  # frames of one direction: a queue that is longer loses what comes


def port(name):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    end.bind((name, ALL_PROTOCOLS))
    end.setblocking(False)
    return end


class Wire:
    def __init__(self, left, right, delay, rate, loss, seed):
        self.ends = [port(left), port(right)]
        self.delay, self.rate, self.loss = delay, rate, loss
        self.random = random.Random(seed)
        self.free_at = [0.0, 0.0]  # when a direction has carried what it was given
        self.waiting = [0, 0]
        self.queue = []  # (due, number, direction, frame)
        self.passed = self.lost = self.number = 0
        self.ending = False

    def take(self, direction):
        try:
            frame, address = self.ends[direction].recvfrom(FRAME_MAX)
        except (BlockingIOError, OSError):
            return False
        if address[2] == PACKET_OUTGOING:
            return True
        if self.random.random() < self.loss or self.waiting[direction] >= WAITING_MAX:
            self.lost += 1
            return True
        carried = max(self.free_at[direction], time.monotonic()) + len(frame) / self.rate
        self.free_at[direction] = carried
        self.number += 1
        self.waiting[direction] += 1
        heapq.heappush(self.queue, (carried + self.delay, self.number, direction, frame))
        return True

    def give(self):
        while self.queue and self.queue[0][0] <= time.monotonic():
            _, _, direction, frame = heapq.heappop(self.queue)
            self.waiting[direction] -= 1
            try:
                self.ends[1 - direction].send(frame)
                self.passed += 1
            except OSError:
                self.lost += 1

    def run(self):
        while not self.ending:
            wait = max(0.0, self.queue[0][0] - time.monotonic()) if self.queue else 0.2
            readable, _, _ = select.select(self.ends, [], [], min(wait, 0.2))
            for end in readable:
                direction = self.ends.index(end)
                for _ in range(64):
                    if not self.take(direction):
                        break
            self.give()
        print(json.dumps({"passed": self.passed, "lost": self.lost}))


if __name__ == "__main__":
    wire = Wire(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:6]), int(sys.argv[6]))
    signal.signal(signal.SIGTERM, lambda *_: setattr(wire, "ending", True))
    print("ready", flush=True)
    wire.run()
