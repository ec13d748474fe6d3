#include "lib/io/input_watch.h"

namespace moelora {
namespace {

thread_local InputWatch* innermost = nullptr;

}  // namespace

void WatchedInput::fail(const Error& error) {
  const std::lock_guard lock(mutex_);
  if (!fault_) fault_ = error;
}

void WatchedInput::check() const {
  const std::lock_guard lock(mutex_);
  if (fault_) throw Error(*fault_);
  stamp_.check_unchanged();
}

InputWatch::InputWatch() : outer_(innermost) { innermost = this; }
InputWatch::~InputWatch() { innermost = outer_; }

InputWatch::Here::Here(InputWatch& watch) : outer_(innermost) { innermost = &watch; }
InputWatch::Here::~Here() { innermost = outer_; }

void InputWatch::check() const {
  const std::lock_guard lock(mutex_);
  for (const auto& input : inputs_) input->check();
}

std::shared_ptr<WatchedInput> InputWatch::opened(const FileStamp& stamp) {
  if (innermost == nullptr) return nullptr;
  const std::lock_guard lock(innermost->mutex_);
  return innermost->inputs_.emplace_back(std::make_shared<WatchedInput>(stamp));
}

}  // namespace moelora
