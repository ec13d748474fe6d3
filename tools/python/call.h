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

#include "tools/python/words.h"

namespace moelora::python {

// One call of the library by Python. The work is done on a thread of its own, without the GIL; the
// Python thread waits, runs the progress callback, and looks for signals, so that Ctrl-C ends the
// work wherever it asks whether it is cancelled.
class Call {
 public:
  // progress(stage, done, total); None for nothing.
  explicit Call(nb::object progress) : progress_(std::move(progress)) {}

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
    if (!raised_) report_progress();  // the last of it
    if (raised_) std::rethrow_exception(raised_);
    if (failed) std::rethrow_exception(failed);
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
  std::mutex mutex_;  // of the next four
  std::condition_variable changed_;
  bool done_ = false, stop_ = false;
  std::optional<Heard> heard_;
  std::exception_ptr raised_;  // by Python; of the Python thread alone
};

[[noreturn]] void raise(const Error& error, const Words& words);

// Runs `work`, an Error of which becomes a moelora.Error that names options as the function of
// these words does.
template <class F>
auto in_python(const Words& words, F&& work) {
  try {
    return work();
  } catch (const Error& error) {
    raise(error, words);
  }
}

// The two of them. REQUIRES that `work` touches nothing of Python.
template <class F>
auto call(const Words& words, nb::object progress, F&& work) {
  return in_python(words, [&] {
    Call one(std::move(progress));
    return one.run([&] { return work(one.job()); });
  });
}

}  // namespace moelora::python
