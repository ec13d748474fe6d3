#include "lib/io/input_watch.h"

#include <sys/stat.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace moelora {
namespace {

thread_local InputWatch* innermost = nullptr;

int64_t mtime_of(const struct stat& s) {
  return static_cast<int64_t>(s.st_mtim.tv_sec) * 1'000'000'000 + s.st_mtim.tv_nsec;
}

}  // namespace

FileStamp::FileStamp(std::string where) : path(std::move(where)) {}

FileStamp::FileStamp(std::string where, const struct stat& s)
    : path(std::move(where)),
      size(static_cast<uint64_t>(s.st_size)),
      device(s.st_dev),
      inode(s.st_ino),
      mtime_ns(mtime_of(s)) {}

void FileStamp::check_unchanged() const {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0)
    throw Error(in_file(path),
                "was removed while it was read: " + std::generic_category().message(errno));
  if (FileStamp(path, s) != *this)
    throw Error(in_file(path), "was changed or replaced while it was read",
                "Run again when nothing writes to it.");
}

void WatchedInput::fail(const Error& error) {
  const std::lock_guard lock(mutex_);
  if (!fault_) fault_ = error;
}

void WatchedInput::check() const {
  const std::lock_guard lock(mutex_);
  if (fault_) throw Error(*fault_);
  stamp_.check_unchanged();
}

InputWatch::InputWatch() : outer_(innermost) { innermost = this; }
InputWatch::~InputWatch() { innermost = outer_; }

void InputWatch::check() const {
  for (const auto& input : inputs_) input->check();
}

std::shared_ptr<WatchedInput> InputWatch::opened(const FileStamp& stamp) {
  if (innermost == nullptr) return nullptr;
  return innermost->inputs_.emplace_back(std::make_shared<WatchedInput>(stamp));
}

}  // namespace moelora
