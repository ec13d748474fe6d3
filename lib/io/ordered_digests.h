#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "lib/base/digest.h"

namespace moelora {

// Digests of many tensors whose bytes come in blocks from several threads. A block waits until the
// blocks before it of its tensor were added: those must be on their way in other threads.
class OrderedDigests {
 public:
  explicit OrderedDigests(size_t tensors) : hex_(tensors) {}

  // Bytes [offset, offset + bytes.size()) of a tensor of `total` bytes. Throws Stopped after
  // stop().
  void add(size_t tensor, uint64_t offset, uint64_t total, std::span<const std::byte> bytes);

  void stop();  // some block will never come: wakes all who wait for it
  struct Stopped {};

  std::vector<std::string> take() { return std::move(hex_); }

 private:
  struct Stream {
    Digest digest;
    uint64_t done = 0;
  };
  Stream& wait_for_turn(size_t tensor, uint64_t offset);

  std::mutex mutex_;
  std::condition_variable moved_;
  std::map<size_t, Stream> streams_;  // of tensors that come in several blocks
  bool stopped_ = false;
  std::vector<std::string> hex_;
};

}  // namespace moelora
