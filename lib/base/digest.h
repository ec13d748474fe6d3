#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace moelora {

// XXH3-128 of a run of bytes: not cryptographic, fast enough (10-25 GB/s a core) to be taken of
// everything that is written. Feed the bytes in order, in pieces of any size.
class Digest {
 public:
  Digest();
  ~Digest();

  void update(std::span<const std::byte> bytes);
  std::string hex() const;  // 32 lower-case hex digits, as `xxhsum -H2` prints them

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string digest_hex(std::span<const std::byte> bytes);

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

  std::mutex mutex_;
  std::condition_variable moved_;
  std::map<size_t, Stream> streams_;  // of tensors that come in several blocks
  bool stopped_ = false;
  std::vector<std::string> hex_;
};

}  // namespace moelora
