#include "tools/python/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "lib/io/safetensors.h"

namespace moelora::python {
namespace {

[[noreturn]] void changed(const std::string& path) {
  throw Error(in_file(path), "was changed or replaced while it was read",
              "Load it again when nothing writes to it.");
}

FileStamp stamp_of(int fd, const std::string& path) {
  struct stat s {};
  if (::fstat(fd, &s) != 0) throw MachineError(in_file(path), "cannot stat: " + system_text(errno));
  return FileStamp(path, s);
}

// O_NONBLOCK: a FIFO may be there by now.
int open_again(const File& file) {
  const int fd = ::open(file.path().c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw MachineError(in_file(file.path()), "cannot open: " + system_text(errno));
  return fd;
}

}  // namespace

MappedFile::MappedFile(const File& file) : fd_(open_again(file)) {
  try {
    stamp_ = stamp_of(fd_, file.path());
    file.check_unchanged();    // what is at its path is still the file that it opened ...
    stamp_.check_unchanged();  // ... and the one that we did
  } catch (...) {
    ::close(fd_);
    throw;
  }
  void* const mapped = ::mmap(nullptr, size(), PROT_READ, MAP_SHARED, fd_, 0);
  if (mapped != MAP_FAILED) data_ = static_cast<const uint8_t*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size());
  ::close(fd_);
}

void MappedFile::check_unchanged() const {
  if (stamp_of(fd_, stamp_.path) != stamp_) changed(stamp_.path);
}

std::vector<const File*> files_of(const Tensor& tensor) {
  std::vector<const File*> out;
  for (const Piece& piece : tensor.pieces())
    if (const FileRange* range = file_range(*piece.source)) out.push_back(range->file);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace moelora::python
