#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/io/file_stamp.h"

namespace moelora {

class WatchedInput;  // lib/io/input_watch.h

// Which links are followed to the files of a folder that was given.
enum class Links : uint8_t {
  within,  // those that stay in the folder or in its hub cache (beneath.h)
  all,     // --follow-links
};

// A file to open: one that was named as it is, by the user or by us, where any link is followed; or
// one of a folder that was given, where a stranger may have put the link.
struct InputPath {
  InputPath(std::string named) : path(std::move(named)) {}
  InputPath(const char* named) : path(named) {}
  InputPath(const std::string& in_folder, const std::string& its_name, Links links);

  std::string path;    // for people; what is opened where `folder` is ""
  std::string folder;  // that no link may leave
  std::string name;    // in `folder`
};

// How the files of an input are opened.
struct InputOptions {
  bool ignore_zip_crc = false;  // read a torch file though the checksum of a record differs
  Links links = Links::within;
};

// The fault is the machine's or its user's, not the file's: no permission, too many open files, no
// memory, a disk that does not answer. What is said of an input may not rest on it: whoever turns
// Errors into findings or notes lets this one pass.
class MachineError : public Error {
 public:
  using Error::Error;
};
bool is_machines(int code);  // whether an errno is of that kind

// A file or folder that is there and cannot be opened, for another reason: a loop of links, a
// device.
class CannotOpen : public Error {
 public:
  using Error::Error;
};

// A regular file opened read-only. Reads are pread: a file that shrinks underneath gives an Error,
// never a SIGBUS. Safe to share between threads.
class File {
 public:
  // Throws Error when `path` is absent, unreadable, not a regular file (FIFO, device, folder), or
  // reached by a link that leaves its folder.
  static std::shared_ptr<const File> open(const InputPath& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return stamp_.path; }
  uint64_t size() const { return stamp_.size; }

  // Fills `out` with bytes [offset, offset + count). Throws Error when the file is shorter by now.
  void read(uint64_t offset, uint64_t count, std::byte* out) const;

  void check_unchanged() const { stamp_.check_unchanged(); }

  // Same device and inode, hence also through symbolic and hard links.
  bool is_same_file(const std::string& path) const;

  // Whether this process has opened the file at `path`, by whatever name, and whether or not it is
  // open still: no report may take its place.
  static bool was_opened(const std::string& path);

 private:
  File() = default;
  [[noreturn]] void fail_to_read(std::string what, int code, const char* hint = "") const;

  FileStamp stamp_;
  int fd_ = -1;
  std::shared_ptr<WatchedInput> watched_;  // null where nobody watches
};

using FilePtr = std::shared_ptr<const File>;

// All of a file of at most `most` bytes. Throws Error.
std::string read_text(const InputPath& path, uint64_t most);

// A file of a folder that goes along with what is converted: null where there is none to take. That
// is said in `notes` where the name is there: a link that leaves the folder (never followed, since
// its content would be published), or to nothing, or a FIFO.
FilePtr open_side_file(const std::string& folder, const std::string& name,
                       std::vector<std::string>& notes);

// Whether nothing is at `path`. What cannot be looked at (permissions, a loop of links) may be
// there; opening it says why.
bool is_absent(const std::string& path);

std::string system_text(int code);  // what the system calls an errno

// ---- folders ----

std::string join_path(const std::string& folder, const std::string& name);

// The names in a folder, sorted. Throws Error when it cannot be listed.
std::vector<std::string> names_in(const std::string& folder);
std::vector<std::string> files_in(const std::string& folder);  // those of folders left out

// Those of `names` that end in one of `endings`, in their order.
std::vector<std::string> ending_in(const std::vector<std::string>& names,
                                   std::initializer_list<std::string_view> endings);

}  // namespace moelora
