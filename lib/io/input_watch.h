#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "lib/base/error.h"
#include "lib/io/file_stamp.h"

namespace moelora {

// A file in an InputWatch. Safe to share between threads.
class WatchedInput {
 public:
  explicit WatchedInput(FileStamp stamp) : stamp_(std::move(stamp)) {}
  void fail(const Error& error);  // it could not be read, or opened; the first counts
  void check() const;             // throws that Error, or that of check_unchanged

 private:
  FileStamp stamp_;
  mutable std::mutex mutex_;
  std::optional<Error> fault_;
};

// What is judged is what was read, all of it and no other bytes. Every file that is opened on this
// thread while a watch lives is in it (in the innermost), closed again or not, whoever swallowed
// the Error of a read that failed.
class InputWatch {
 public:
  InputWatch();
  ~InputWatch();
  InputWatch(const InputWatch&) = delete;
  InputWatch& operator=(const InputWatch&) = delete;

  // Throws Error: the one of a read that failed, or of an open that failed through no fault of the
  // path (an I/O error, no descriptor left); or that of FileStamp::check_unchanged.
  void check() const;

  // While it lives, files that are opened on this thread are in the watch of another, which must
  // outlive it.
  class Here {
   public:
    explicit Here(InputWatch& watch);
    ~Here();
    Here(const Here&) = delete;
    Here& operator=(const Here&) = delete;

   private:
    InputWatch* outer_;
  };

  // For File: a file of the watch of this thread, null without one.
  static std::shared_ptr<WatchedInput> opened(const FileStamp& stamp);

 private:
  InputWatch* outer_;
  mutable std::mutex mutex_;  // of inputs_
  std::vector<std::shared_ptr<WatchedInput>> inputs_;
};

}  // namespace moelora
