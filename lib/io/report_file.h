#pragma once

#include <string>
#include <string_view>

namespace moelora {

// The one file that a report goes into: opened before any work, complete under its name or as it
// was. What is written lies in a temporary file beside it, is synced, and takes its place in one
// step; an existing file's mode is kept, and a link to it stays one. What is no file of a folder
// (/dev/stdout and other open descriptors, pipes, devices) is written as it is, at its end.
class ReportFile {
 public:
  // Throws Error when nothing can be written there.
  explicit ReportFile(std::string path);
  ~ReportFile();
  ReportFile(const ReportFile&) = delete;
  ReportFile& operator=(const ReportFile&) = delete;

  // All of it, once. Throws Error, and leaves the file as it was, when it cannot be written
  // completely, or when this process has read that file: whatever it is called, it is an input.
  void write(std::string_view text);

  // Throws Error when `file` is the one that would be replaced.
  void refuse(const std::string& file) const;

 private:
  std::string path_;    // as the user named it
  std::string target_;  // what it takes the place of; "" is written as it is
  std::string staged_;
  int fd_ = -1;
};

// The same for stdout. A closed or full one is an Error.
void write_stdout(std::string_view text);

// Takes the numbers of stdin, stdout and stderr where they were closed, so that no file that is
// opened later gets one of them and what is printed. Call first in main.
void hold_standard_streams();

}  // namespace moelora
