#include "lib/io/output.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>

#include "lib/base/error.h"
#include "lib/io/disk/look.h"
#include "lib/io/disk/own_output.h"
#include "lib/io/disk/staging.h"
#include "lib/io/output_tree.h"

namespace moelora {
namespace fs = std::filesystem;
namespace {

// ---- where a folder may go ----

// The parent's real path and the name in it; "out/" and "a/../out" are understood.
fs::path resolve(const std::string& path) {
  std::error_code failed;
  fs::path full = fs::absolute(path, failed).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  if (path.empty() || failed || !full.has_filename())
    throw Error(in_file(path), "is not a name for an output folder");
  const fs::path parent = fs::canonical(full.parent_path(), failed);
  if (failed)
    throw Error(in_file(path),
                "its parent folder " + full.parent_path().string() + ": " + failed.message(),
                "create the parent folder first");
  return parent / full.filename();
}

[[noreturn]] void refuse_input(const std::string& path, const std::string& input) {
  throw Error(in_file(path), "is or holds the input " + input, "name another output folder");
}

void refuse_inputs(const fs::path& target, const std::string& path,
                   const std::vector<FilePtr>& inputs) {
  for (const FilePtr& input : inputs) {
    std::error_code failed;
    for (fs::path at = fs::canonical(input->path(), failed); at.has_relative_path();
         at = at.parent_path())
      if (at == target) refuse_input(path, input->path());
    if (!is_folder(target.string())) {
      if (is_there(target.string()) && input->is_same_file(target.string()))
        refuse_input(path, input->path());
      continue;
    }
    if (const fs::path real = fs::canonical(target, failed); real != target)
      refuse_inputs(real, path, {input});
    for (auto it = fs::recursive_directory_iterator(target, failed);
         !failed && it != fs::recursive_directory_iterator(); it.increment(failed))
      if (is_regular_file(it->path().string()) && input->is_same_file(it->path().string()))
        refuse_input(path, input->path());
    if (failed) throw MachineError(in_file(path), "cannot be listed: " + failed.message());
  }
}

// The files of a folder that is there and may be replaced; nullopt where nothing is there.
std::optional<std::vector<std::string>> replaced_files(const std::string& target,
                                                       const std::string& path, bool force) {
  struct stat s {};
  if (lstat(target.c_str(), &s) != 0) {
    if (errno == ENOENT) return std::nullopt;
    throw Error(in_file(path), "cannot be an output: " + system_text(errno), "name another output");
  }
  if (!force)
    throw Error(in_file(path), "exists already",
                {"pass ", Option::force, " to replace it, or name another output"});
  if (S_ISLNK(s.st_mode))
    throw Error(in_file(path), "is a symbolic link, which --force does not replace",
                "name the folder it points to, or remove the link");
  if (!S_ISDIR(s.st_mode))
    throw Error(in_file(path), "is a file, and the output is a folder", "name another output");
  return replaceable_files(target, path);
}

// Linux gives a large write large pages of cache. Where a hypervisor takes free memory back, those
// are the ones it has to find again first: measured 0.4 against 3 GB/s (tests/bench/RESULTS.md).
constexpr size_t kStep = 256 << 10;

int reserve(int fd, uint64_t size) {
  const auto length = static_cast<off_t>(size);
  if (size == 0) return 0;
  int result = 0;
  do result = fallocate(fd, 0, 0, length);
  while (result != 0 && errno == EINTR);
  if (result == 0) return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
  return ftruncate(fd, length) == 0 ? 0 : errno;
}

}  // namespace

// ---- one file ----

OutputFile::OutputFile(int fd, std::string path, uint64_t size, bool durable)
    : path_(std::move(path)), size_(size), durable_(durable), fd_(fd) {
  if (fd_ < 0) fail("cannot be created", errno);
  if (const int error = reserve(fd_, size)) {
    close(fd_);
    fail(fmt::format("cannot reserve {} bytes", size), error);
  }
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
}

void OutputFile::write(uint64_t offset, std::span<const std::byte> bytes) {
  if (offset > size_ || bytes.size() > size_ - offset)
    fail(fmt::format("write of {} bytes at {} of {}", bytes.size(), offset, size_), EINVAL);
  const std::lock_guard lock(writing_);
  while (!bytes.empty()) {
    const size_t step = std::min(bytes.size(), kStep);
    const ssize_t n = pwrite(fd_, bytes.data(), step, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail(fmt::format("cannot write {} bytes at {}", bytes.size(), offset), n < 0 ? errno : EIO);
    offset += static_cast<uint64_t>(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void OutputFile::finish() {
  if (fd_ < 0) return;
  const int fd = fd_;
  fd_ = -1;
  const int synced = durable_ && fsync(fd) != 0 ? errno : 0;
  const int closed = close(fd) != 0 ? errno : 0;
  if (synced != 0) fail("cannot be made durable", synced);
  if (closed != 0) fail("cannot be closed", closed);
}

void OutputFile::fail(const std::string& what, int error) const {
  const bool full = error == ENOSPC || error == EDQUOT;
  throw Error(in_file(path_), what + ": " + system_text(error),
              full ? "free some space, or name an output on another disk" : "");
}

// ---- the folder ----

OutputFolder::OutputFolder(std::string path, std::vector<FilePtr> inputs, OutputOptions options)
    : path_(std::move(path)), inputs_(std::move(inputs)), options_(options) {
  const fs::path target = resolve(path_);
  refuse_inputs(target, path_, inputs_);
  target_ = target.string();
  replaced_files(target_, path_, options.force);
  temporary_ = stage_folder(target_);
}

OutputFolder::~OutputFolder() {
  files_.clear();
  if (!temporary_.empty()) remove_staged(temporary_);
}

OutputFilePtr OutputFolder::create(const std::string& name, uint64_t size) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos)
    throw Error(in_file(path_), "'" + name + "' is not a plain file name");
  auto file = std::make_shared<OutputFile>(open_staged(temporary_, name), join_path(path_, name),
                                           size, options_.durable);
  files_[name] = file;
  names_.push_back(name);
  return file;
}

void OutputFolder::write_text(std::string_view name, std::string_view text) {
  create(std::string(name), text.size())->write(0, std::as_bytes(std::span(text)));
}

void OutputFolder::copy_file(const std::string& name, const File& from) {
  const auto output = create(name, from.size());
  std::vector<std::byte> held(std::min<uint64_t>(from.size(), 1 << 20));
  for (uint64_t at = 0; at < from.size(); at += held.size()) {
    const uint64_t n = std::min<uint64_t>(held.size(), from.size() - at);
    from.read(at, n, held.data());
    output->write(at, std::span(held).first(n));
  }
  from.check_unchanged();
}

std::vector<std::string> OutputFolder::names_with(
    std::initializer_list<std::string_view> rest) const {
  std::vector<std::string> out = names_;
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

std::string OutputFolder::commit(const std::string& last_name, std::string_view last_text,
                                 const std::function<void()>& ready) {
  for (const FilePtr& input : inputs_) input->check_unchanged();
  finish_files();
  write_text(last_name, last_text);
  finish_files();
  if (options_.durable) sync_folder(temporary_, path_);
  if (ready) ready();
  std::optional<std::vector<std::string>> replaced;
  if (options_.force) replaced = replaced_files(target_, path_, true);
  const std::string left = publish_folder(temporary_, target_, path_, replaced, options_.durable);
  temporary_.clear();
  return left;
}

const std::string& OutputFolder::staged() {
  finish_files();
  return temporary_;
}

void OutputFolder::finish_files() {
  for (const auto& [name, file] : files_) file->finish();
  files_.clear();
}

// ---- a folder of folders ----

namespace {

// A temporary folder until it is published.
struct StagedTree {
  explicit StagedTree(const std::string& target) : path(stage_folder(target)) {}
  ~StagedTree() {
    if (!path.empty()) remove_staged(path);
  }
  StagedTree(const StagedTree&) = delete;
  StagedTree& operator=(const StagedTree&) = delete;

  std::string path;
};

}  // namespace

void write_tree(const std::string& path, const TreeFiles& files, bool durable,
                const std::function<void()>& ready) {
  const std::string target = resolve(path).string();
  if (struct stat s{}; lstat(target.c_str(), &s) == 0)
    throw Error(in_file(path), "exists already", "name another folder: none is replaced");
  StagedTree tree(target);
  std::set<std::string> folders;
  for (const auto& [name, bytes] : files) {
    const std::string file_name(name);
    if (const size_t slash = file_name.find('/'); slash != std::string::npos)
      if (const std::string folder = file_name.substr(0, slash); folders.insert(folder).second)
        make_staged_folder(tree.path, folder, path);
    OutputFile file(open_staged(tree.path, file_name), join_path(path, file_name), bytes.size(),
                    durable);
    file.write(0, std::as_bytes(std::span(bytes)));
    file.finish();
  }
  for (const std::string& folder : folders)
    if (durable) sync_folder(join_path(tree.path, folder), path);
  if (durable) sync_folder(tree.path, path);
  if (ready) ready();
  publish_folder(tree.path, target, path, std::nullopt, durable);
  tree.path.clear();
}

}  // namespace moelora
