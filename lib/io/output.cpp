#include "lib/io/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <map>
#include <mutex>
#include <system_error>

#include "lib/base/error.h"
#include "lib/io/staging.h"

namespace moelora {
namespace fs = std::filesystem;
namespace {

// ---- one file ----

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

// A new file of a known size, written by pwrite from any thread.
class WriteFile {
 public:
  // Creates `at` (which must not exist) and reserves `size` bytes. Errors name `path`, the final
  // one.
  WriteFile(const std::string& at, std::string path, uint64_t size, bool durable);
  ~WriteFile();
  WriteFile(const WriteFile&) = delete;
  WriteFile& operator=(const WriteFile&) = delete;

  // REQUIRES: offset + bytes.size() <= size. Bytes never written read as zero.
  void write(uint64_t offset, std::span<const std::byte> bytes);

  // Syncs when durable, and closes; a failure of either is an Error and never retried.
  void finish();

  const std::string& path() const { return path_; }

 private:
  [[noreturn]] void fail(const std::string& what, int error) const;

  std::string path_;
  uint64_t size_;
  bool durable_;
  int fd_ = -1;
};

WriteFile::WriteFile(const std::string& at, std::string path, uint64_t size, bool durable)
    : path_(std::move(path)), size_(size), durable_(durable) {
  constexpr int kFlags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  fd_ = open_outputs().guarded([&] { return open(at.c_str(), kFlags, 0666); });
  if (fd_ < 0) fail("cannot be created", errno);
  if (const int error = reserve(fd_, size)) {
    close(fd_);
    fail(fmt::format("cannot reserve {} bytes", size), error);
  }
}

WriteFile::~WriteFile() {
  if (fd_ >= 0) close(fd_);
}

void WriteFile::write(uint64_t offset, std::span<const std::byte> bytes) {
  if (offset > size_ || bytes.size() > size_ - offset)
    fail(fmt::format("write of {} bytes at {} of {}", bytes.size(), offset, size_), EINVAL);
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

void WriteFile::finish() {
  if (fd_ < 0) return;
  const int fd = fd_;
  fd_ = -1;
  const int synced = durable_ && fsync(fd) != 0 ? errno : 0;
  const int closed = close(fd) != 0 ? errno : 0;
  if (synced != 0) fail("cannot be made durable", synced);
  if (closed != 0) fail("cannot be closed", closed);
}

void WriteFile::fail(const std::string& what, int error) const {
  const bool full = error == ENOSPC || error == EDQUOT;
  throw Error(in_file(path_), what + ": " + std::generic_category().message(error),
              full ? "free some space, or name an output on another disk" : "");
}

// ---- where a folder may go ----

// Of adapters, models, and buffers of a server.
constexpr std::array<const char*, 3> kMarks = {"adapter_config.json", "config.json",
                                               "conversion.json"};

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
    if (!fs::is_directory(target, failed)) {
      if (fs::exists(target, failed) && input->is_same_file(target.string()))
        refuse_input(path, input->path());
      continue;
    }
    if (const fs::path real = fs::canonical(target, failed); real != target)
      refuse_inputs(real, path, {input});
    for (auto it = fs::recursive_directory_iterator(target, failed);
         !failed && it != fs::recursive_directory_iterator(); it.increment(failed))
      if (it->is_regular_file(failed) && input->is_same_file(it->path().string()))
        refuse_input(path, input->path());
  }
}

// With --force only what looks like an earlier output is replaced.
void refuse_existing(const fs::path& target, const std::string& path, bool force) {
  std::error_code failed;
  const fs::file_status status = fs::symlink_status(target, failed);
  if (!fs::exists(status)) return;
  if (!force)
    throw Error(in_file(path), "exists already",
                {"pass ", Option::force, " to replace it, or name another output"});
  if (fs::is_symlink(status))
    throw Error(in_file(path), "is a symbolic link, which --force does not replace",
                "name the folder it points to, or remove the link");
  if (!fs::is_directory(status))
    throw Error(in_file(path), "is a file, and the output is a folder", "name another output");
  const bool marked = std::any_of(kMarks.begin(), kMarks.end(),
                                  [&](const char* mark) { return fs::exists(target / mark); });
  if (!marked && !fs::is_empty(target, failed))
    throw Error(in_file(path),
                "is a folder without adapter_config.json, config.json or conversion.json, hence "
                "no output that --force may replace",
                "remove it yourself if that is what you want");
}

}  // namespace

struct OutputFolder::Impl {
  std::string path;  // as the user named it
  fs::path target;
  std::vector<FilePtr> inputs;
  OutputOptions options;
  std::string temporary;
  std::map<std::string, std::shared_ptr<WriteFile>> files;

  std::shared_ptr<WriteFile> create(const std::string& name, uint64_t size) {
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos)
      throw Error(in_file(path), "'" + name + "' is not a plain file name");
    auto file = std::make_shared<WriteFile>(temporary + "/" + name, path + "/" + name, size,
                                            options.durable);
    files[name] = file;
    return file;
  }

  void finish_files() {
    for (const auto& [name, file] : files) file->finish();
    files.clear();
  }
};

namespace {

class Handle final : public OutputFile {
 public:
  explicit Handle(std::shared_ptr<WriteFile> file) : file_(std::move(file)) {}
  void write(uint64_t offset, std::span<const std::byte> bytes) override {
    file_->write(offset, bytes);
  }
  const std::string& path() const override { return file_->path(); }

 private:
  std::shared_ptr<WriteFile> file_;
};

}  // namespace

OutputFolder::OutputFolder(std::string path, std::vector<FilePtr> inputs, OutputOptions options)
    : impl_(std::make_unique<Impl>()) {
  impl_->path = std::move(path);
  impl_->inputs = std::move(inputs);
  impl_->options = options;
  impl_->target = resolve(impl_->path);
  refuse_inputs(impl_->target, impl_->path, impl_->inputs);
  refuse_existing(impl_->target, impl_->path, options.force);
  impl_->temporary = open_outputs().make_temporary(impl_->target);
}

OutputFolder::~OutputFolder() {
  impl_->files.clear();
  if (!impl_->temporary.empty()) open_outputs().remove_temporary(impl_->temporary);
}

std::unique_ptr<OutputFile> OutputFolder::create(const std::string& name, uint64_t size) {
  return std::make_unique<Handle>(impl_->create(name, size));
}

void OutputFolder::write_text(const std::string& name, std::string_view text) {
  impl_->create(name, text.size())->write(0, std::as_bytes(std::span(text)));
}

void OutputFolder::copy_file(const std::string& name, const std::string& from) {
  const FilePtr input = File::open(from);
  const auto output = impl_->create(name, input->size());
  std::vector<std::byte> held(std::min<uint64_t>(input->size(), 1 << 20));
  for (uint64_t at = 0; at < input->size(); at += held.size()) {
    const uint64_t n = std::min<uint64_t>(held.size(), input->size() - at);
    input->read(at, n, held.data());
    output->write(at, std::span(held).first(n));
  }
  input->check_unchanged();
}

void OutputFolder::commit(const std::string& last_name, std::string_view last_text) {
  Impl& it = *impl_;
  for (const FilePtr& input : it.inputs) input->check_unchanged();
  it.finish_files();
  write_text(last_name, last_text);
  it.finish_files();
  if (it.options.durable) sync_folder(it.temporary, it.path);
  publish(it.temporary, it.target.string(), it.path, it.options.force, it.options.durable);
  it.temporary.clear();
}

const std::string& OutputFolder::staged() {
  impl_->finish_files();
  return impl_->temporary;
}

const std::string& OutputFolder::path() const { return impl_->path; }

}  // namespace moelora
