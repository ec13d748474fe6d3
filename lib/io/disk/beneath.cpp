#include "lib/io/disk/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <deque>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

namespace moelora {
namespace {

namespace fs = std::filesystem;

constexpr int kRead = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
constexpr int kLook = O_PATH | O_CLOEXEC | O_NOFOLLOW;
constexpr int kMostLinks = 40;  // as the kernel has it

// An open descriptor, closed at the end; errno is left as it is.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    const int kept = errno;
    if (fd_ >= 0) ::close(fd_);
    errno = kept;
  }
  operator int() const { return fd_; }

 private:
  int fd_;
};

int failed(int code) {
  errno = code;
  return -1;
}

// The folder that links may not leave: the repository's of a snapshot in a hub cache, else `folder`
// itself.
fs::path realm_of(const fs::path& folder) {
  for (fs::path at = folder; at.has_relative_path(); at = at.parent_path())
    if (at.parent_path().filename() == "snapshots" &&
        at.parent_path().parent_path().filename().string().starts_with("models--"))
      return at.parent_path().parent_path();
  return folder;
}

class Walk {
 public:
  // `folder` and `realm`: real paths.
  Walk(const fs::path& folder, fs::path realm) : realm_(std::move(realm)) {
    ahead(folder.lexically_relative(realm_));
  }

  int open(const std::string& name) {
    at_.emplace_back(::open(realm_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (at_.back() < 0) return -1;
    const fs::path file(name);
    rest_.insert(rest_.end(), file.begin(), file.end());
    while (!rest_.empty()) {
      const std::string part = rest_.front();
      rest_.pop_front();
      if (part.empty() || part == ".") continue;
      if (part == "..") {
        if (at_.size() == 1) return failed(EXDEV);
        at_.pop_back();
        continue;
      }
      if (!step(part)) return -1;
    }
    return ::openat(at_.back(), last_.empty() ? "." : last_.c_str(), kRead | O_NOFOLLOW);
  }

 private:
  void ahead(const fs::path& path) { rest_.insert(rest_.begin(), path.begin(), path.end()); }

  bool step(const std::string& part) {
    Descriptor next(::openat(at_.back(), part.c_str(), kLook));
    struct stat s {};
    if (next < 0 || ::fstat(next, &s) != 0) return false;
    if (S_ISLNK(s.st_mode)) return follow(next);
    if (S_ISDIR(s.st_mode)) {
      at_.push_back(std::move(next));
      last_.clear();
      return true;
    }
    last_ = part;
    if (rest_.empty()) return true;
    errno = ENOTDIR;
    return false;
  }

  bool follow(int link) {
    std::array<char, PATH_MAX> text{};
    const ssize_t length = ::readlinkat(link, "", text.data(), text.size());
    if (length < 0) return false;
    if (++links_ > kMostLinks) return failed(ELOOP) == 0;
    fs::path target(std::string(text.data(), static_cast<size_t>(length)));
    if (target.is_absolute()) {
      std::error_code fault;
      target = fs::canonical(target, fault).lexically_relative(realm_);
      if (fault) return failed(fault.value()) == 0;
      if (target.empty() || *target.begin() == "..") return failed(EXDEV) == 0;
      at_.erase(at_.begin() + 1, at_.end());
    }
    ahead(target);
    return true;
  }

  fs::path realm_;
  std::vector<Descriptor> at_;    // the realm's folder, and those below it down to here
  std::deque<std::string> rest_;  // what is still to go
  std::string last_;              // the file that was reached, in at_.back()
  int links_ = 0;
};

int open_by_kernel(const std::string& folder, const std::string& name) {
  const Descriptor root(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (root < 0) return -1;
  open_how how{};
  how.flags = static_cast<uint64_t>(kRead);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(
      ::syscall(SYS_openat2, static_cast<int>(root), name.c_str(), &how, sizeof how));
}

}  // namespace

int open_beneath(const std::string& folder, const std::string& name) {
  const int fd = open_by_kernel(folder, name);
  if (fd >= 0) return fd;
  // It led out or came from the root; or there is no such call, or a sandbox does not know it; or
  // something was renamed on the way.
  for (const int code : {EXDEV, ENOSYS, EPERM, EINVAL, E2BIG, EAGAIN})
    if (errno == code) return open_by_steps(folder, name);
  return -1;
}

int open_by_steps(const std::string& folder, const std::string& name) {
  std::error_code fault;
  const fs::path real = fs::canonical(folder, fault);
  if (fault) return failed(fault.value());
  return Walk(real, realm_of(real)).open(name);
}

}  // namespace moelora
