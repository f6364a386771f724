#!/usr/bin/env python3
"""A small HTTP API over a week of USGS earthquakes: pages, ETags, gzip, and a refusal now and then, as real APIs have.

  GET /quakes?limit=100&offset=0&starttime=TIME   {"metadata":{…},"features":[…],"links":{"next":URL}}, oldest first;
                                                  the last page has no "next"
  GET /stats                                      {"requests":…,"pages":…,"not_modified":…,"throttled":…,"unavailable":…}
  GET /metrics                                    the same for Prometheus
  GET /healthz                                    ok

Which request is refused depends only on its number, so every run is alike: of the requests for pages, number 4, 10, 16 …
answers 429 with Retry-After, number 7, 16, 25 … answers 503. A refused request that is tried again is a new request.
"""

import argparse
import datetime
import gzip
import hashlib
import http.server
import json
import os
import sys
import threading
import urllib.parse

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "earthquakes.json.gz")


def load_features(repeat=1, path=DATA):
    """[(time in ms, id, the feature's JSON exactly as published)], oldest first; `repeat` copies with ids of their own."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        text = file.read()
    features = []
    decoder = json.JSONDecoder()
    at = text.index('"features":[') + len('"features":[')
    while text[at] != "]":
        feature, end = decoder.raw_decode(text, at)
        features.append((feature["properties"]["time"], feature["id"], text[at:end]))
        at = end
        while text[at] in ", \r\n\t":
            at += 1
    features.sort(key=lambda feature: feature[0])
    return [feature for copy in range(repeat) for feature in renamed(features, copy)]


def renamed(features, copy):
    """The same with ids of their own for each copy; copy 0 has those that were published."""
    if copy == 0:
        return features
    return [(time_ms, f"{name}-{copy}", body.replace(f'"id":"{name}"', f'"id":"{name}-{copy}"')) for time_ms, name, body in features]


def parse_time_ms(text):
    if text.isdigit():
        return int(text)
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return int(moment.timestamp() * 1000)


class Api(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port, features, *, host="127.0.0.1", faults=True, token=None, delay=0.0):
        super().__init__((host, port), Handler)
        self.features = features
        self.faults = faults
        self.token = token
        self.delay = delay
        self.lock = threading.Lock()
        self.stats = dict.fromkeys(("requests", "pages", "not_modified", "throttled", "unavailable"), 0)

    def handle_error(self, request, client_address):
        # A client that was killed or went away is no error of the server.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def count(self, what):
        with self.lock:
            self.stats[what] += 1
            return self.stats[what]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/healthz":
            self.answer(200, b"ok\n", "text/plain")
        elif url.path == "/stats":
            with self.server.lock:
                body = json.dumps(self.server.stats).encode()
            self.answer(200, body)
        elif url.path == "/metrics":
            with self.server.lock:
                lines = [f"# TYPE demo_api_{name} counter\ndemo_api_{name} {count}\n" for name, count in self.server.stats.items()]
            self.answer(200, "".join(lines).encode(), "text/plain; version=0.0.4")
        elif url.path == "/quakes":
            self.quakes(dict(urllib.parse.parse_qsl(url.query)))
        else:
            self.answer(404, b'{"error":"no such path"}')

    def quakes(self, query):
        server = self.server
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            self.answer(401, b'{"error":"a bearer token is needed"}')
            return
        number = server.count("requests")
        if server.delay:
            threading.Event().wait(server.delay)
        if server.faults and number % 6 == 4:
            server.count("throttled")
            self.answer(429, b'{"error":"too many requests"}', headers={"Retry-After": "1"})
            return
        if server.faults and number % 9 == 7:
            server.count("unavailable")
            self.answer(503, b'{"error":"back in a moment"}')
            return
        try:
            limit = min(max(int(query.get("limit", 100)), 1), 1000)
            offset = max(int(query.get("offset", 0)), 0)
            start_ms = parse_time_ms(query["starttime"]) if "starttime" in query else None
        except ValueError as error:
            self.answer(400, json.dumps({"error": str(error)}).encode())
            return
        found = [f for f in server.features if start_ms is None or f[0] >= start_ms]
        page = found[offset:offset + limit]
        links = {}
        if offset + limit < len(found):
            rest = dict(query, limit=str(limit), offset=str(offset + limit))
            # By the name that the client knows this server by.
            base = f"http://{self.headers['Host']}" if self.headers["Host"] else server.url
            links["next"] = f"{base}/quakes?{urllib.parse.urlencode(rest)}"
        metadata = {"title": "USGS All Earthquakes, one week of 2018", "count": len(page), "total": len(found)}
        body = '{"metadata":%s,"features":[%s],"links":%s}' % (
            json.dumps(metadata), ",\n".join(body for _, _, body in page), json.dumps(links))
        self.page(body.encode())

    def page(self, body):
        etag = '"%s"' % hashlib.sha256(body).hexdigest()[:32]
        if self.headers.get("If-None-Match") == etag:
            self.server.count("not_modified")
            self.answer(304, b"", headers={"ETag": etag})
            return
        self.server.count("pages")
        headers = {"ETag": etag, "Vary": "Accept-Encoding"}
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        self.answer(200, body, headers=headers)

    def answer(self, status, body, content_type="application/json", headers=None):
        self.send_response(status)
        if status != 304:
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if status != 304:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    arguments = argparse.ArgumentParser(description="Serves the demo's earthquakes, page by page.")
    arguments.add_argument("--host", default="127.0.0.1", help="address to listen on")
    arguments.add_argument("--port", type=int, default=7420)
    arguments.add_argument("--repeat", type=int, default=1, help="serve so many copies of the data, each with ids of its own")
    arguments.add_argument("--no-faults", action="store_true", help="never answer 429 or 503 on purpose")
    arguments.add_argument("--token", help="ask for this bearer token")
    arguments.add_argument("--delay-ms", type=int, default=0, help="wait before each page")
    options = arguments.parse_args()
    try:
        api = Api(options.port, load_features(options.repeat), host=options.host, faults=not options.no_faults,
                  token=options.token, delay=options.delay_ms / 1000)
    except OSError as error:
        sys.exit(f"api.py: port {options.port}: {error.strerror}")
    print(f"serving {len(api.features)} earthquakes on {api.url}/quakes", flush=True)
    try:
        api.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
