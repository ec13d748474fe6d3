#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace moelora {

// XXH3-128 of a run of bytes: not cryptographic, fast enough (10-25 GB/s a core) to be taken of
// everything that is written. Feed the bytes in order, in pieces of any size.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  void update(std::span<const std::byte> bytes);
  std::string hex() const;  // 32 lower-case hex digits, as `xxhsum -H2` prints them

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string digest_hex(std::span<const std::byte> bytes);

}  // namespace moelora
