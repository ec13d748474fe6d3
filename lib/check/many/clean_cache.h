#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/check/many/opened_bases.h"
#include "lib/check/validation.h"

namespace moelora {

// What a report says again of an adapter in which nothing was found.
struct CleanVerdict {
  std::string layout;  // its id, "" for none
  int64_t tensors = 0, rules_run = 0;
  std::vector<Served> served;
  std::vector<std::string> notes;
  std::vector<Skipped> skipped;
};

// Verdicts of earlier runs: a file an adapter and way of asking, in a folder that is this user's
// alone. An adapter counts as unchanged where its path, the names of its files, its config and what
// else of JSON is read of it, the headers and sizes of its safetensors, its base model, every
// option and this tool's version and rules are those of the verdict. Values are not read for that.
// Kept is only that there was no error and no warning, and none that was waived; what is merely
// information is not said again.
class CleanCache {
 public:
  // Makes the folder (mode 0700), or takes one that such a run has made (CACHEDIR.TAG says so).
  // Throws Error for another folder, and for one of another user or one that others may write to:
  // what lies there would be believed.
  CleanCache(std::string folder, const ValidateRequest& request);

  // What identifies a base model; the same each time.
  const std::string& digest_of(OpenedBase& base);

  // The rest may be called by several threads.

  // What identifies the adapter as it is now, with the digest of its base; "" for one that is not
  // kept, since it cannot be read, or no header says what it holds (torch.save).
  std::string key_of(const Subject& adapter, const std::string& base) const;

  // nullopt where there is none of this key, or what lies there cannot be read as one.
  std::optional<CleanVerdict> find(const std::string& path, const std::string& key) const;

  // Complete or not at all. Throws Error where it cannot be written.
  void store(const std::string& path, const std::string& key, const CleanVerdict& verdict) const;

 private:
  std::string file_of(const std::string& path) const;

  std::string folder_, asked_;  // the digest of what is asked
  std::map<const OpenedBase*, std::string> bases_;
};

}  // namespace moelora
