#include "lib/io/staging.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <random>
#include <system_error>
#include <thread>

#include "lib/base/error.h"

namespace moelora {
namespace fs = std::filesystem;

namespace {

std::string temporary_name(const fs::path& target) {
  std::random_device random;
  const std::string name =
      fmt::format(".{}.tmp.{}.{:08x}", target.filename().string(), getpid(), random());
  return (target.parent_path() / name).string();
}

// The three signals that end a run, less those the parent told us to ignore (nohup).
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
  open_outputs().remove_all_forever();
  std::signal(number, SIG_DFL);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, number);
  pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  raise(number);
}

}  // namespace

OpenOutputs& open_outputs() {
  static auto* outputs = new OpenOutputs;  // never destroyed: the signal thread may outlive main
  return *outputs;
}

std::string OpenOutputs::make_temporary(const fs::path& target) {
  const std::lock_guard lock(mutex_);
  for (int attempt = 0;; ++attempt) {
    const std::string path = temporary_name(target);
    if (mkdir(path.c_str(), 0777) == 0) {
      paths_.insert(path);
      return path;
    }
    if (errno != EEXIST || attempt == 100)
      throw Error(in_file(target.parent_path().string()),
                  "cannot make a folder in it: " + std::generic_category().message(errno),
                  "name an output in a folder you may write to");
  }
}

std::error_code OpenOutputs::remove_temporary(const std::string& path) {
  const std::lock_guard lock(mutex_);
  std::error_code failed;
  fs::remove_all(path, failed);
  paths_.erase(path);
  return failed;
}

bool OpenOutputs::hand_over(const std::string& path, const std::function<bool()>& f) {
  const std::lock_guard lock(mutex_);
  const bool replaced = f();
  if (!replaced) paths_.erase(path);
  return replaced;
}

void OpenOutputs::remove_all_forever() {
  mutex_.lock();
  std::error_code ignored;
  for (const std::string& path : paths_) fs::remove_all(path, ignored);
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

// ---- publishing ----

namespace {

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

[[noreturn]] void fail(const std::string& where, const std::string& what, int error) {
  if (error == EEXIST)
    throw Error(in_file(where), "appeared while the output was being made, and was left alone",
                {"pass ", Option::force, " to replace it, or name another output"});
  throw Error(in_file(where), what + ": " + std::generic_category().message(error));
}

void sync_parent(const std::string& target, const std::string& where) {
  sync_folder(fs::path(target).parent_path().string(), where);
}

void publish_new(const std::string& temporary, const std::string& target, const std::string& where,
                 bool durable) {
  if (const int error = rename_new(temporary, target))
    fail(where, "cannot be renamed into place", error);
  try {
    if (durable) sync_parent(target, where);
  } catch (const Error&) {
    rename(target.c_str(), temporary.c_str());
    throw;
  }
}

void publish_exchanged(const std::string& temporary, const std::string& target,
                       const std::string& where, bool durable) {
  if (const int error = exchange(temporary, target)) fail(where, "cannot be replaced", error);
  try {
    if (durable) sync_parent(target, where);
  } catch (const Error&) {
    exchange(temporary, target);
    throw;
  }
}

void remove_replaced(const std::string& temporary, const std::string& where) {
  if (const std::error_code failed = open_outputs().remove_temporary(temporary))
    throw Error(
        in_file(where),
        "is complete, but the folder it replaced is left as " + temporary + ": " + failed.message(),
        "remove that folder");
}

}  // namespace

void sync_folder(const std::string& path, const std::string& where) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int opened = fd < 0 ? errno : 0;
  const int synced = fd >= 0 && fsync(fd) != 0 ? errno : 0;
  const int closed = fd >= 0 && close(fd) != 0 ? errno : 0;
  for (const int error : {opened, synced, closed})
    if (error != 0)
      throw Error(in_file(where),
                  "cannot be made durable: " + std::generic_category().message(error));
}

void publish(const std::string& temporary, const std::string& target, const std::string& where,
             bool force, bool durable) {
  const bool replaced = open_outputs().hand_over(temporary, [&] {
    if (force && exists(target)) {
      publish_exchanged(temporary, target, where, durable);
      return true;
    }
    publish_new(temporary, target, where, durable);
    return false;
  });
  if (replaced) remove_replaced(temporary, where);
}

}  // namespace moelora
