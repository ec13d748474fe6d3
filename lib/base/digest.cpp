#include "lib/base/digest.h"

#include <fmt/core.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#define XXH_INLINE_ALL
#include <xxhash.h>
#pragma GCC diagnostic pop

namespace moelora {
namespace {

std::string to_hex(XXH128_hash_t hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

struct Digest::State {
  XXH3_state_t xxh;
};

Digest::Digest() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
Digest::~Digest() = default;

void Digest::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->xxh, bytes.data(), bytes.size());
}

std::string Digest::hex() const { return to_hex(XXH3_128bits_digest(&state_->xxh)); }

std::string digest_hex(std::span<const std::byte> bytes) {
  return to_hex(XXH3_128bits(bytes.data(), bytes.size()));
}

void OrderedDigests::add(size_t tensor, uint64_t offset, uint64_t total,
                         std::span<const std::byte> bytes) {
  if (bytes.size() == total) {
    hex_[tensor] = digest_hex(bytes);
    return;
  }
  std::unique_lock lock(mutex_);
  Stream& stream = streams_[tensor];
  moved_.wait(lock, [&] { return stopped_ || stream.done == offset; });
  if (stopped_) throw Stopped{};
  lock.unlock();
  stream.digest.update(bytes);
  lock.lock();
  stream.done += bytes.size();
  if (stream.done == total) {
    hex_[tensor] = stream.digest.hex();
    streams_.erase(tensor);
  }
  moved_.notify_all();
}

void OrderedDigests::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  moved_.notify_all();
}

}  // namespace moelora
