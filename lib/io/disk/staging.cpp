#include "lib/io/disk/staging.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "lib/base/error.h"
#include "lib/io/file.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

// What this process has under temporary names, so that a signal can remove it. One mutex orders
// three things: making an entry, publishing it, and removing it. Hence a signal sees an output
// either unpublished, and leaves nothing, or published, and leaves it whole.
struct Staging {
  std::mutex mutex;
  // What is in each, in the order in which it was made: files, and folders as "NAME/".
  std::map<std::string, std::vector<std::string>> folders;
  std::map<std::string, std::vector<std::string>> files;  // none in each
};

Staging& staging() {
  static auto* staged = new Staging;  // never destroyed: the signal thread may outlive main
  return *staged;
}

// Not std::random_device: libstdc++'s wants a newer glibc than images that servers run in
// (MOELORA_STATIC). Two runs that draw the same only try again.
uint32_t random_number() {
  uint32_t out = 0;
  if (getentropy(&out, sizeof out) != 0) out = static_cast<uint32_t>(std::clock());
  return out;
}

// A name may have 255 bytes, of which the longest suffix here takes 30.
std::string temporary_name(const fs::path& target) {
  constexpr size_t kMostOfName = 64;
  std::string name = target.filename().string();
  if (name.size() > kMostOfName) {
    name.resize(kMostOfName);
    while (!name.empty() && (name.back() & 0xC0) == 0x80) name.pop_back();  // no half character
    if (!name.empty() && (name.back() & 0x80) != 0) name.pop_back();
  }
  name = fmt::format(".{}.tmp.{}.{:08x}", name, getpid(), random_number());
  return (target.parent_path() / name).string();
}

// Calls make(path) for temporary names until one is free; it returns below 0 with errno.
template <class Make>
std::pair<std::string, int> stage(const fs::path& target,
                                  std::map<std::string, std::vector<std::string>>& kind,
                                  const char* what, Make&& make) {
  const std::lock_guard lock(staging().mutex);
  for (int attempt = 0;; ++attempt) {
    const std::string path = temporary_name(target);
    const auto entry = kind.try_emplace(path).first;
    const int made = make(path.c_str());
    if (made >= 0) return {path, made};
    const int code = errno;
    kind.erase(entry);
    if (code == EEXIST && attempt < 100) continue;
    const bool for_place = code == EACCES || code == EPERM || code == EROFS || code == ENOTDIR ||
                           code == ENOENT || code == EINVAL;
    throw Error(in_file(target.parent_path().string()),
                fmt::format("cannot make a {} in it: {}", what, system_text(code)),
                for_place ? "name an output in a folder you may write to" : "");
  }
}

// Of a folder or a file; 0, or the errno of the first that stays.
int remove_all_of(const std::string& path, const std::vector<std::string>& files, bool is_folder) {
  int fault = 0;
  const auto removed = [&](int result) {
    if (result != 0 && errno != ENOENT && fault == 0) fault = errno;
  };
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    const std::string at = path + "/" + *file;
    removed(file->ends_with('/') ? rmdir(at.c_str()) : unlink(at.c_str()));
  }
  removed(is_folder ? rmdir(path.c_str()) : unlink(path.c_str()));
  return fault;
}

// The signals that end a run, less those the parent had us ignore (nohup).
sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU, SIGALRM, SIGUSR1, SIGUSR2}) {
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
  for (const auto& [folder, files] : staging().folders) remove_all_of(folder, files, true);
  for (const auto& [file, none] : staging().files) remove_all_of(file, none, false);
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

}  // namespace

std::string stage_folder(const std::string& target) {
  return stage(target, staging().folders, "folder",
               [](const char* path) { return mkdir(path, 0777); })
      .first;
}

StagedFile stage_file(const std::string& target) {
  const auto [path, fd] = stage(target, staging().files, "file", [](const char* at) {
    return open(at, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  });
  return {path, fd};
}

int open_staged(const std::string& folder, const std::string& name) {
  constexpr int kFlags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const std::lock_guard lock(staging().mutex);
  const int fd = open((folder + "/" + name).c_str(), kFlags, 0666);
  if (fd >= 0) staging().folders[folder].push_back(name);
  return fd;
}

void make_staged_folder(const std::string& folder, const std::string& name,
                        const std::string& where) {
  const std::lock_guard lock(staging().mutex);
  if (mkdir((folder + "/" + name).c_str(), 0777) != 0)
    throw Error(in_file(where), fmt::format("cannot make a folder in it: {}", system_text(errno)));
  staging().folders[folder].push_back(name + "/");
}

std::string remove_staged(const std::string& path) {
  const std::lock_guard lock(staging().mutex);
  const auto folder = staging().folders.find(path);
  int fault = 0;
  if (folder != staging().folders.end()) {
    fault = remove_all_of(path, folder->second, true);
    staging().folders.erase(folder);
  } else if (staging().files.erase(path) != 0) {
    fault = remove_all_of(path, {}, false);
  }
  return fault == 0 ? "" : system_text(fault);
}

void sync_folder(const std::string& path, const std::string& where) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int opened = fd < 0 ? errno : 0;
  const int synced = fd >= 0 && fsync(fd) != 0 ? errno : 0;
  const int closed = fd >= 0 && close(fd) != 0 ? errno : 0;
  for (const int error : {opened, synced, closed})
    if (error != 0) throw Error(in_file(where), "cannot be made durable: " + system_text(error));
}

std::string publish_folder(const std::string& temporary, const std::string& target,
                           const std::string& where,
                           const std::optional<std::vector<std::string>>& replaced, bool durable) {
  {
    const std::lock_guard lock(staging().mutex);
    put_in_place(temporary, target, where, replaced.has_value(), durable);
    if (!replaced) {
      staging().folders.erase(temporary);
      return "";
    }
    staging().folders[temporary] = *replaced;
  }
  const std::string failed = remove_staged(temporary);
  if (failed.empty()) return "";
  return fmt::format("{}: the folder that it replaced is left as {}: {}", where, temporary, failed);
}

void publish_file(const std::string& temporary, const std::string& target,
                  const std::string& where) {
  const std::lock_guard lock(staging().mutex);
  if (rename(temporary.c_str(), target.c_str()) != 0)
    throw Error(in_file(where), "cannot be renamed into place: " + system_text(errno));
  staging().files.erase(temporary);
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
