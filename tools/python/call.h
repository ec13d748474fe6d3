#pragma once

#include <nanobind/nanobind.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "tools/python/running.h"
#include "tools/python/words.h"

namespace moelora::python {

// One call of the library by Python. The work is done on a thread of its own, without the GIL; the
// Python thread waits, runs the progress callback, and looks for signals, so that Ctrl-C ends the
// work wherever it asks whether it is cancelled.
class Call {
 public:
  // progress(stage, done, total); None for nothing.
  Call(nb::object progress, Running& running) : progress_(std::move(progress)), running_(running) {}

  JobControl job();

  // What `work` returns or throws, or what the callback or a signal raised meanwhile.
  template <class F>
  auto run(F&& work) {
    std::optional<std::invoke_result_t<F>> result;
    std::exception_ptr failed;
    {
      const nb::gil_scoped_release released;
      std::thread worker([&] {
        try {
          result.emplace(work());
        } catch (...) {
          failed = std::current_exception();
        }
        finish();
      });
      while (!wait()) attend();
      worker.join();
    }
    running_.check();
    if (raised_) std::rethrow_exception(raised_);
    if (failed) std::rethrow_exception(failed);
    report_progress();  // the last of it
    return std::move(*result);
  }

 private:
  struct Heard {
    std::string stage;
    uint64_t done, total;
  };

  void finish();
  bool wait();  // true when the work is done
  void attend();
  void report_progress();

  nb::object progress_;
  Running& running_;
  std::mutex mutex_;  // of the next four
  std::condition_variable changed_;
  bool done_ = false, stop_ = false;
  std::optional<Heard> heard_;
  std::exception_ptr raised_;  // by Python; of the Python thread alone
};

// Sets the exception of Python, moelora.Error.
void set_error(const Error& error, const Words& words);

// Runs `work`, an Error of which becomes a moelora.Error that names options as the function of
// these words does.
template <class F>
auto in_python(const Words& words, F&& work) {
  try {
    return work();
  } catch (const Error& error) {
    set_error(error, words);
    throw nb::python_error();
  }
}

// All of it. REQUIRES that `work` touches nothing of Python.
template <class F>
auto call(const Words& words, nb::object progress, F&& work) {
  Running running;
  return in_python(words, [&] {
    Call one(std::move(progress), running);
    return one.run([&] { return work(one.job()); });
  });
}

}  // namespace moelora::python
