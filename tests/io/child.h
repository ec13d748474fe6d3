#pragma once

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

namespace moelora {

// Runs `work` in a child process, which exits with what it returns (250: an exception), and sends
// it `number` after `after_us` microseconds when number is not 0. Returns the status of waitpid.
// The child starts with the default signal handlers, not with those of the test framework.
template <class F>
int run_child(F&& work, int number = 0, unsigned after_us = 0) {
  sigset_t ending, before;
  sigemptyset(&ending);
  for (const int each : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU}) sigaddset(&ending, each);
  sigprocmask(SIG_BLOCK, &ending, &before);
  const pid_t child = fork();
  if (child == 0) {
    for (const int each : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU}) std::signal(each, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    int code = 250;
    try {
      code = work();
    } catch (...) {
    }
    _exit(code);
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  if (number != 0) {
    usleep(after_us);
    kill(child, number);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

inline int exit_code(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }

// A tmpfs of a given size, where this process may mount one.
class SmallDisk {
 public:
  SmallDisk(std::string path, const std::string& size) : path_(std::move(path)) {
    mkdir(path_.c_str(), 0777);
    mounted_ = mount("tmpfs", path_.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  std::string path_;
  bool mounted_;
};

}  // namespace moelora
