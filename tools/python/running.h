#pragma once

#include <nanobind/nanobind.h>

#include <atomic>

namespace moelora::python {

// A call of the library that gives the GIL away. An interpreter that ends takes down the other
// threads (daemons) as they ask for the GIL, and a thread that is taken down in the middle of C++
// aborts the process. So the end stops what runs, and waits for it; whoever is stopped gets a
// SystemExit, which ends a thread in silence. Made and destroyed with the GIL, around all of a
// call.
class Running {
 public:
  Running();  // raises SystemExit on another thread than the one that ends the interpreter
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  bool stopped() const { return stopped_; }
  void check() const;  // raises SystemExit when it is stopped

  // While it lives, Python's code runs in the call (a progress callback). The end waits two seconds
  // for that, which may never return.
  class InPython {
   public:
    explicit InPython(Running& running);
    ~InPython();
    InPython(const InPython&) = delete;
    InPython& operator=(const InPython&) = delete;

   private:
    Running& running_;
  };

 private:
  friend class RunningCalls;

  std::atomic<bool> stopped_ = false, in_python_ = false;
};

void bind_running();

}  // namespace moelora::python
