#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/file.h"

namespace moelora {

struct OutputOptions {
  bool force = false;   // replace an existing output (own_output.h)
  bool durable = true;  // fsync files and folder before the final name appears
};

// A file of an output folder while it is being written: preallocated, written by pwrite from any
// thread. Every short or failed write throws Error.
class OutputFile {
 public:
  // Takes a new file's descriptor (below 0: it could not be created, errno says why) and reserves
  // `size` bytes. Errors name `path`, the final one.
  OutputFile(int fd, std::string path, uint64_t size, bool durable);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // REQUIRES: offset + bytes.size() <= size. Bytes never written read as zero.
  void write(uint64_t offset, std::span<const std::byte> bytes);

  // Syncs when durable, and closes; a failure of either is an Error and never retried.
  void finish();

 private:
  [[noreturn]] void fail(const std::string& what, int error) const;

  std::string path_;
  uint64_t size_;
  bool durable_;
  int fd_ = -1;
  std::mutex writing_;  // writers of one file wait for each other in the kernel, but spinning
};
using OutputFilePtr = std::shared_ptr<OutputFile>;

// An output folder that appears complete or not at all. Files are written into a temporary folder
// beside the target; commit() flushes them, syncs and renames it into place (RENAME_NOREPLACE, or
// an exchange with --force). The destructor and the signals of install_signal_handlers() remove the
// temporary folder. Files get mode 0666 & ~umask.
class OutputFolder {
 public:
  // Throws Error when `path` exists and force is off, when it is, holds, or lies on one of
  // `inputs` (by device and inode, hence through links), or when its parent cannot be written.
  OutputFolder(std::string path, std::vector<FilePtr> inputs, OutputOptions options);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  // A file of `size` bytes, space reserved at once (no space is an Error before any work).
  OutputFilePtr create(const std::string& name, uint64_t size);
  void write_text(std::string_view name, std::string_view text);
  void copy_file(const std::string& name, const File& from);  // tokenizer files and such

  // The names of all files so far, and `rest`: what the output lists, for --force to go by.
  std::vector<std::string> names_with(std::initializer_list<std::string_view> rest) const;

  // Flushes what was written so far and returns the temporary folder it lies in, for reading it
  // back before it is published.
  const std::string& staged();

  // Re-checks the inputs (File::check_unchanged), writes `last_name` (the config by which servers
  // discover an adapter) last, calls `ready`, and publishes. What `ready` throws leaves nothing:
  // the report of the work goes there, so that nothing but a rename is still to come when it is
  // out. Returns what to say where a folder that was replaced could not be removed, else "".
  std::string commit(const std::string& last_name, std::string_view last_text,
                     const std::function<void()>& ready = {});

  const std::string& path() const { return path_; }

 private:
  void finish_files();

  std::string path_;    // as the user named it
  std::string target_;  // where it will be
  std::vector<FilePtr> inputs_;
  OutputOptions options_;
  std::string temporary_;
  std::map<std::string, OutputFilePtr> files_;  // those that are not finished
  std::vector<std::string> names_;              // all
};

}  // namespace moelora
