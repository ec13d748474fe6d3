#include "lib/io/open_outputs.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <random>
#include <system_error>
#include <thread>

#include "lib/base/error.h"
#include "lib/io/output.h"

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
      throw Error(target.parent_path().string(),
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

}  // namespace moelora
