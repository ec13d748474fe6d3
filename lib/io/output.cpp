#include "lib/io/output.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>
#include <system_error>
#include <thread>

#include "lib/base/error.h"

namespace moelora {
namespace fs = std::filesystem;
namespace {

// ---- temporary folders and signals ----

// The temporary folders of this process, so that a signal can remove them. One mutex orders three
// things: making an entry in a temporary folder, publishing it, and removing it. Hence a signal
// sees an output either unpublished, and leaves nothing, or published, and leaves it whole.
struct Staging {
  std::mutex mutex;
  std::set<std::string> folders;
};

Staging& staging() {
  static auto* folders = new Staging;  // never destroyed: the signal thread may outlive main
  return *folders;
}

std::string temporary_name(const fs::path& target) {
  std::random_device random;
  const std::string name =
      fmt::format(".{}.tmp.{}.{:08x}", target.filename().string(), getpid(), random());
  return (target.parent_path() / name).string();
}

// Makes the folder ".NAME.tmp.PID.RANDOM" beside `target` and returns its path.
std::string make_temporary(const fs::path& target) {
  const std::lock_guard lock(staging().mutex);
  for (int attempt = 0;; ++attempt) {
    const std::string path = temporary_name(target);
    if (mkdir(path.c_str(), 0777) == 0) {
      staging().folders.insert(path);
      return path;
    }
    if (errno != EEXIST || attempt == 100)
      throw Error(in_file(target.parent_path().string()),
                  "cannot make a folder in it: " + system_text(errno),
                  "name an output in a folder you may write to");
  }
}

std::error_code remove_temporary(const std::string& path) {
  const std::lock_guard lock(staging().mutex);
  std::error_code failed;
  fs::remove_all(path, failed);
  staging().folders.erase(path);
  return failed;
}

// The three signals that end a run, less those the parent had us ignore (nohup).
sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction now {};
    sigaction(number, nullptr, &now);
    if (now.sa_handler != SIG_IGN) sigaddset(&set, number);
  }
  return set;
}

void wait_and_clean(sigset_t set) {
  int number = 0;
  while (sigwait(&set, &number) != 0) {
  }
  staging().mutex.lock();  // for good: nobody makes or publishes anything any more
  std::error_code ignored;
  for (const std::string& folder : staging().folders) fs::remove_all(folder, ignored);
  std::signal(number, SIG_DFL);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, number);
  pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  raise(number);
}

// ---- publishing ----

bool exists(const std::string& path) {
  struct stat ignored {};
  return lstat(path.c_str(), &ignored) == 0;
}

bool unsupported(int error) { return error == EINVAL || error == ENOSYS || error == ENOTSUP; }

// Where the file system knows no flags: a folder never replaces a non-empty folder, so the window
// between the test and the rename can cost no data.
int rename_new(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (!unsupported(errno)) return errno;
  if (exists(to)) return EEXIST;
  return rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

int exchange(const std::string& a, const std::string& b) {
  if (renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return 0;
  if (!unsupported(errno)) return errno;
  const std::string aside = a + ".old";
  if (rename(b.c_str(), aside.c_str()) != 0) return errno;
  if (rename(a.c_str(), b.c_str()) != 0) {
    const int error = errno;
    rename(aside.c_str(), b.c_str());
    return error;
  }
  return rename(aside.c_str(), a.c_str()) == 0 ? 0 : errno;
}

// fsync of a folder. Errors name `where`.
void sync_folder(const std::string& path, const std::string& where) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int opened = fd < 0 ? errno : 0;
  const int synced = fd >= 0 && fsync(fd) != 0 ? errno : 0;
  const int closed = fd >= 0 && close(fd) != 0 ? errno : 0;
  for (const int error : {opened, synced, closed})
    if (error != 0) throw Error(in_file(where), "cannot be made durable: " + system_text(error));
}

// Puts `temporary` at `target`, and takes that back where it cannot be made durable.
void put_in_place(const std::string& temporary, const std::string& target, const std::string& where,
                  bool replaces, bool durable) {
  const auto move = replaces ? exchange : rename_new;
  const int error = move(temporary, target);
  if (error == EEXIST)
    throw Error(in_file(where), "appeared while the output was being made, and was left alone",
                {"pass ", Option::force, " to replace it, or name another output"});
  if (error != 0)
    throw Error(in_file(where),
                fmt::format("cannot be {}: {}", replaces ? "replaced" : "renamed into place",
                            system_text(error)));
  try {
    if (durable) sync_folder(fs::path(target).parent_path().string(), where);
  } catch (const Error&) {
    move(target, temporary);
    throw;
  }
}

// Gives the finished folder `temporary` its final name `target` in one step that nobody can see
// half done, and syncs the parent when durable. With force an existing folder at `target` is
// exchanged and then removed. On an Error `target` is as it was. Errors name `where`.
void publish(const std::string& temporary, const std::string& target, const std::string& where,
             const OutputOptions& options) {
  {
    const std::lock_guard lock(staging().mutex);
    const bool replaces = options.force && exists(target);
    put_in_place(temporary, target, where, replaces, options.durable);
    if (!replaces) {
      staging().folders.erase(temporary);
      return;
    }
  }
  if (const std::error_code failed = remove_temporary(temporary))
    throw Error(
        in_file(where),
        "is complete, but the folder it replaced is left as " + temporary + ": " + failed.message(),
        "remove that folder");
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

OutputFile::OutputFile(const std::string& at, std::string path, uint64_t size, bool durable)
    : path_(std::move(path)), size_(size), durable_(durable) {
  constexpr int kFlags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  {
    const std::lock_guard lock(staging().mutex);
    fd_ = open(at.c_str(), kFlags, 0666);
  }
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
  refuse_existing(target, path_, options.force);
  target_ = target.string();
  temporary_ = make_temporary(target);
}

OutputFolder::~OutputFolder() {
  files_.clear();
  if (!temporary_.empty()) remove_temporary(temporary_);
}

OutputFilePtr OutputFolder::create(const std::string& name, uint64_t size) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos)
    throw Error(in_file(path_), "'" + name + "' is not a plain file name");
  auto file = std::make_shared<OutputFile>(temporary_ + "/" + name, path_ + "/" + name, size,
                                           options_.durable);
  files_[name] = file;
  return file;
}

void OutputFolder::write_text(const std::string& name, std::string_view text) {
  create(name, text.size())->write(0, std::as_bytes(std::span(text)));
}

void OutputFolder::copy_file(const std::string& name, const std::string& from) {
  const FilePtr input = File::open(from);
  const auto output = create(name, input->size());
  std::vector<std::byte> held(std::min<uint64_t>(input->size(), 1 << 20));
  for (uint64_t at = 0; at < input->size(); at += held.size()) {
    const uint64_t n = std::min<uint64_t>(held.size(), input->size() - at);
    input->read(at, n, held.data());
    output->write(at, std::span(held).first(n));
  }
  input->check_unchanged();
}

void OutputFolder::commit(const std::string& last_name, std::string_view last_text) {
  for (const FilePtr& input : inputs_) input->check_unchanged();
  finish_files();
  write_text(last_name, last_text);
  finish_files();
  if (options_.durable) sync_folder(temporary_, path_);
  publish(temporary_, target_, path_, options_);
  temporary_.clear();
}

const std::string& OutputFolder::staged() {
  finish_files();
  return temporary_;
}

void OutputFolder::finish_files() {
  for (const auto& [name, file] : files_) file->finish();
  files_.clear();
}

void install_signal_handlers() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  const sigset_t set = ending_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  try {
    std::thread(wait_and_clean, set).detach();
  } catch (const std::system_error&) {  // no thread to be had: signals end the process at once
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  }
}

}  // namespace moelora
