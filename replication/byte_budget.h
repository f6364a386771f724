// ByteBudget: bytes that a node's catching-up followers may have under way together, so that however many they are,
// what live ones need is not starved. Who asks is served in order; a share is given back when its Lease dies.
//
// Always holds: the shares given out are at most `bytes_max` together. Somebody who asks for more than there is at all
// gets all of it, alone.
// Threads: any. A Lease may die on any thread, also after the budget.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "common/executor.h"

namespace sluice::replication {

class ByteBudget {
 public:
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&& other) noexcept;
    ~Lease() { GiveBack(); }
    int64_t bytes() const { return bytes_; }
    void GiveBack();
    /// Gives back what is above `bytes`.
    void Shrink(int64_t bytes);

   private:
    friend class ByteBudget;
    struct State;
    Lease(std::shared_ptr<State> state, int64_t bytes);
    std::shared_ptr<State> state_;
    int64_t bytes_ = 0;
  };

  explicit ByteBudget(int64_t bytes_max);

  /// Runs `granted` on `home` once the share is there; never inside this call. `home` outlives the wait.
  void Ask(int64_t bytes, Executor& home, absl::AnyInvocable<void(Lease)> granted);
  /// Forgets who waits, and serves nobody any more.
  void Close();
  int64_t used() const;
  int64_t waiting() const;

 private:
  std::shared_ptr<Lease::State> state_;
};

}  // namespace sluice::replication
