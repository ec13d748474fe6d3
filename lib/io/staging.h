#pragma once

#include <filesystem>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <system_error>

namespace moelora {

// The temporary folders of this process, so that a signal can remove them. One mutex orders three
// things: making an entry in a temporary folder, publishing it, and removing it. Hence a signal
// sees an output either unpublished, and leaves nothing, or published, and leaves it whole.
class OpenOutputs {
 public:
  // Makes the folder ".NAME.tmp.PID.RANDOM" beside `target` and returns its path.
  std::string make_temporary(const std::filesystem::path& target);
  std::error_code remove_temporary(const std::string& path);

  // Runs `f` while no signal can remove anything.
  template <class F>
  auto guarded(F&& f) {
    const std::lock_guard lock(mutex_);
    return f();
  }
  // Publishing: `f` renames `path` to its final name, and returns true when it put a folder that is
  // to be removed in its place.
  bool hand_over(const std::string& path, const std::function<bool()>& f);

  // For the signal thread: removes all, and lets nobody make or publish anything any more.
  void remove_all_forever();

 private:
  std::mutex mutex_;
  std::set<std::string> paths_;
};

OpenOutputs& open_outputs();

// fsync of a folder. Errors name `where`.
void sync_folder(const std::string& path, const std::string& where);

// Gives the finished folder `temporary` its final name `target` in one step that nobody can see
// half done, and syncs the parent when durable. With force an existing folder at `target` is
// exchanged and then removed. On an Error `target` is as it was. Errors name `where`.
void publish(const std::string& temporary, const std::string& target, const std::string& where,
             bool force, bool durable);

// Call once at the start of main: SIGINT, SIGTERM and SIGHUP remove the temporary
// folders and re-raise; SIGPIPE and SIGXFSZ become errors of write.
void install_signal_handlers();

}  // namespace moelora
