#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

namespace moelora {

// A file of an output folder while it is being written, its space reserved at once. Every short or
// failed write throws Error.
//
// Where the file system keeps what it has reserved (ext4, xfs, tmpfs), large writes go through a
// shared mapping of just their own bytes: writers of one file do not wait for each other there, as
// they do in pwrite. A page that the disk cannot give after all is an Error too: SIGBUS is caught
// while, and only while, such a write copies, and goes to the handler before ours otherwise.
class OutputFile {
 public:
  // Takes `file`, an empty file open for reading and writing. Errors name `path`, the final one.
  OutputFile(int file, std::string path, uint64_t size, bool durable);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // From any thread. REQUIRES: offset + bytes.size() <= size. Bytes never written read as zero.
  void write(uint64_t offset, std::span<const std::byte> bytes);

  // Syncs when durable, and closes; a failure of either is an Error and never retried.
  void finish();

 private:
  void write_by_call(uint64_t offset, std::span<const std::byte> bytes);
  [[noreturn]] void fail(const std::string& what, int error) const;

  std::string path_;
  uint64_t size_;
  bool durable_;
  bool mapped_ = false;  // large writes go through a mapping
  int file_;
  std::mutex calls_;  // writers wait for each other in the kernel anyway, at the price of cores
};
using OutputFilePtr = std::shared_ptr<OutputFile>;

}  // namespace moelora
