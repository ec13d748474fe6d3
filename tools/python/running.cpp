#include "tools/python/running.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

namespace moelora::python {

namespace nb = nanobind;

class RunningCalls {
 public:
  // Whether it may run.
  bool add(Running* call) {
    const std::lock_guard lock(mutex_);
    if (ended_by_ && *ended_by_ != std::this_thread::get_id()) return false;
    calls_.insert(call);
    return true;
  }

  void remove(Running* call) {
    const std::lock_guard lock(mutex_);
    calls_.erase(call);
    changed_.notify_all();
  }

  void set_in_python(Running* call, bool whether) {
    const std::lock_guard lock(mutex_);
    call->in_python_ = whether;
    changed_.notify_all();
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    ended_by_ = std::this_thread::get_id();
    for (Running* call : calls_) call->stopped_ = true;
  }

  // Whether none runs, or none but those in Python, after a while at most.
  bool wait(bool also_for_python) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(50), [&] {
      return std::all_of(calls_.begin(), calls_.end(),
                         [&](const Running* call) { return !also_for_python && call->in_python_; });
    });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<Running*> calls_;
  std::optional<std::thread::id> ended_by_;
};

namespace {

// Never destroyed: a thread may be in it until the process ends.
RunningCalls* calls = new RunningCalls;

// The other threads of a process are not in its forked child.
void forget_calls() { calls = new RunningCalls; }

[[noreturn]] void leave() {
  PyErr_SetNone(PyExc_SystemExit);
  throw nb::python_error();
}

void end_calls() {
  using Clock = std::chrono::steady_clock;
  const auto patience = Clock::now() + std::chrono::seconds(2);
  calls->stop();
  for (bool done = false; !done;) {
    {
      const nb::gil_scoped_release released;
      done = calls->wait(Clock::now() < patience);
    }
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

}  // namespace

Running::Running() {
  if (!calls->add(this)) leave();
}

Running::~Running() { calls->remove(this); }

void Running::check() const {
  if (stopped()) leave();
}

Running::InPython::InPython(Running& running) : running_(running) {
  calls->set_in_python(&running_, true);
}

Running::InPython::~InPython() { calls->set_in_python(&running_, false); }

void bind_running() {
  ::pthread_atfork(nullptr, nullptr, forget_calls);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(end_calls));
}

}  // namespace moelora::python
