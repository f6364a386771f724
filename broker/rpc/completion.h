// What a completion queue hands back: its address is gRPC's tag.
#pragma once

#include <memory>

namespace sluice::broker::rpc {

class Completion {
 public:
  virtual void Complete(bool ok) = 0;
  /// What gRPC is given, and Completion again behind it.
  void* tag() { return this; }
  static Completion& Of(void* tag) { return *static_cast<Completion*>(tag); }

 protected:
  ~Completion() = default;
};

/// A step at gRPC of a T, started again once it is complete. Keeps its T alive until then.
template <class T>
class StepOf final : public Completion {
 public:
  StepOf(T* object, void (T::*complete)(bool ok)) : object_(object), complete_(complete) {}
  /// Before gRPC is given the tag.
  void* Start() {
    keep_ = object_->shared_from_this();
    return tag();
  }
  /// It will not complete after all.
  void Forget() { keep_ = nullptr; }
  void Complete(bool ok) override {
    const std::shared_ptr<T> held = std::move(keep_);
    (held.get()->*complete_)(ok);
  }

 private:
  T* const object_;
  void (T::*const complete_)(bool ok);
  std::shared_ptr<T> keep_;
};

}  // namespace sluice::broker::rpc
