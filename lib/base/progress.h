#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "lib/base/error.h"

namespace moelora {

// How far one stage of a job is, in bytes; 0 of 0 where nobody knows how much it will be.
struct Progress {
  std::string_view stage;  // "writing", "comparing", "computing"
  uint64_t done = 0, total = 0;
};

// The caller cancelled the job. Nothing of its output was published.
class Cancelled : public Error {
 public:
  Cancelled() : Error("", "cancelled") {}
};

// What a caller hears of a job and how it ends one. Both may be empty. `progress` is called from
// any thread, never by two at once, at most 20 times a second and at the end of each stage;
// `cancelled` is asked between adapters, tensors and blocks of one, from any thread.
struct JobControl {
  std::function<void(const Progress&)> progress;
  std::function<bool()> cancelled;

  void check() const {
    if (cancelled && cancelled()) throw Cancelled();
  }
};

}  // namespace moelora