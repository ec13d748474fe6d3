#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/io/file.h"
#include "lib/io/output_file.h"

namespace moelora {

struct OutputOptions {
  bool force = false;   // replace an existing output
  bool durable = true;  // fsync files and folder before the final name appears
};

// An output folder that appears complete or not at all. Files are written into a temporary folder
// beside the target; commit() flushes them, syncs and renames it into place (RENAME_NOREPLACE, or
// an exchange with --force). The destructor, SIGINT, SIGTERM and SIGHUP remove the temporary
// folder; a signal is re-raised afterwards. Files get mode 0666 & ~umask.
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
  void write_text(const std::string& name, std::string_view text);
  void copy_file(const std::string& name, const std::string& from);  // tokenizer files and such

  // Flushes what was written so far and returns the temporary folder it lies in, for reading it
  // back before it is published.
  const std::string& staged();

  // Re-checks the inputs (File::check_unchanged), writes `last_name` (the config by which servers
  // discover an adapter) last, and publishes.
  void commit(const std::string& last_name, std::string_view last_text);

  const std::string& path() const { return path_; }

 private:
  void finish_files();

  std::string path_;    // as the user named it
  std::string target_;  // where it will be
  std::vector<FilePtr> inputs_;
  OutputOptions options_;
  std::string temporary_;
  std::map<std::string, OutputFilePtr> files_;  // those that are not finished
};

// Call once at the start of main: SIGINT, SIGTERM and SIGHUP remove the temporary folders and
// re-raise; SIGPIPE and SIGXFSZ become errors of write.
void install_signal_handlers();

}  // namespace moelora
