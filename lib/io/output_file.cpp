#include "lib/io/output_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstring>

#include "lib/base/error.h"
#include "lib/io/file.h"

namespace moelora {
namespace {

// ---- room ----

// Reserves `size` bytes; an errno, or 0. `kept` tells whether the file system has promised them.
int reserve(int file, uint64_t size, bool& kept) {
  const auto length = static_cast<off_t>(size);
  if (size == 0) return 0;
  int result = 0;
  do result = fallocate(file, 0, 0, length);
  while (result != 0 && errno == EINTR);
  kept = result == 0;
  if (kept) return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
  return ftruncate(file, length) == 0 ? 0 : errno;
}

// Whether blocks that were reserved are those that will be written: not where each write takes new
// ones (btrfs, zfs), nor where another machine has the disk.
bool writes_in_place(int file) {
  constexpr std::array<decltype(statfs::f_type), 3> kKinds = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,
                                                              TMPFS_MAGIC};
  struct statfs where {};
  return fstatfs(file, &where) == 0 &&
         std::find(kKinds.begin(), kKinds.end(), where.f_type) != kKinds.end();
}

// ---- a write through a mapping ----

thread_local sigjmp_buf* t_escape = nullptr;  // where this thread is copying into a mapping
struct sigaction before_ours {};

extern "C" void escape_from_copy(int number, siginfo_t* info, void* context) {
  if (t_escape != nullptr) siglongjmp(*t_escape, 1);
  if ((before_ours.sa_flags & SA_SIGINFO) != 0)
    return before_ours.sa_sigaction(number, info, context);
  if (before_ours.sa_handler != SIG_DFL && before_ours.sa_handler != SIG_IGN)
    return before_ours.sa_handler(number);
  std::signal(number, SIG_DFL);  // and once more where it was raised
}

void catch_bus_errors() {
  static const bool done = [] {
    struct sigaction ours {};
    ours.sa_sigaction = escape_from_copy;
    // Not masked while the handler runs, which it leaves by a jump.
    ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    return sigaction(SIGBUS, &ours, &before_ours) == 0;
  }();
  static_cast<void>(done);
}

// False where a page could not be had.
bool copy_guarded(std::byte* to, std::span<const std::byte> bytes) {
  sigjmp_buf escape;
  if (sigsetjmp(escape, 0) != 0) {
    t_escape = nullptr;
    return false;
  }
  t_escape = &escape;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  std::memcpy(to, bytes.data(), bytes.size());
  std::atomic_signal_fence(std::memory_order_seq_cst);
  t_escape = nullptr;
  return true;
}

// An errno, or 0.
int write_mapped(int file, uint64_t offset, std::span<const std::byte> bytes) {
  static const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t begin = offset / page * page;
  const size_t length = bytes.size() + static_cast<size_t>(offset - begin);
  void* const map =
      mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, static_cast<off_t>(begin));
  if (map == MAP_FAILED) return errno;
  const bool copied = copy_guarded(static_cast<std::byte*>(map) + (offset - begin), bytes);
  munmap(map, length);
  return copied ? 0 : EIO;
}

// Below this a call is cheaper than a mapping.
constexpr size_t kLeastMapped = 1 << 20;

// Linux gives a large write large pages of cache. Where a hypervisor takes free memory back, those
// are the ones it has to find again first: measured 0.4 against 3 GB/s (tests/bench/RESULTS.md).
constexpr size_t kStep = 256 << 10;

}  // namespace

OutputFile::OutputFile(int file, std::string path, uint64_t size, bool durable)
    : path_(std::move(path)), size_(size), durable_(durable), file_(file) {
  bool kept = false;
  if (const int error = reserve(file_, size, kept)) {
    close(file_);
    fail(fmt::format("cannot reserve {} bytes", size), error);
  }
  mapped_ = kept && size >= kLeastMapped && writes_in_place(file_);
  if (mapped_) catch_bus_errors();
}

OutputFile::~OutputFile() {
  if (file_ >= 0) close(file_);
}

void OutputFile::write(uint64_t offset, std::span<const std::byte> bytes) {
  if (offset > size_ || bytes.size() > size_ - offset)
    fail(fmt::format("write of {} bytes at {} of {}", bytes.size(), offset, size_), EINVAL);
  if (!mapped_ || bytes.size() < kLeastMapped) return write_by_call(offset, bytes);
  const int error = write_mapped(file_, offset, bytes);
  if (error == ENOMEM || error == ENODEV) return write_by_call(offset, bytes);  // no mapping
  if (error != 0) fail(fmt::format("cannot write {} bytes at {}", bytes.size(), offset), error);
}

void OutputFile::write_by_call(uint64_t offset, std::span<const std::byte> bytes) {
  const std::lock_guard lock(calls_);
  while (!bytes.empty()) {
    const size_t step = std::min(bytes.size(), kStep);
    const ssize_t n = pwrite(file_, bytes.data(), step, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail(fmt::format("cannot write {} bytes at {}", bytes.size(), offset), n < 0 ? errno : EIO);
    offset += static_cast<uint64_t>(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void OutputFile::finish() {
  if (file_ < 0) return;
  const int file = file_;
  file_ = -1;
  const int synced = durable_ && fsync(file) != 0 ? errno : 0;
  const int closed = close(file) != 0 ? errno : 0;
  if (synced != 0) fail("cannot be made durable", synced);
  if (closed != 0) fail("cannot be closed", closed);
}

void OutputFile::fail(const std::string& what, int error) const {
  const bool full = error == ENOSPC || error == EDQUOT;
  throw Error(in_file(path_), what + ": " + system_text(error),
              full ? "free some space, or name an output on another disk" : "");
}

}  // namespace moelora
