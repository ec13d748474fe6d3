#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/progress.h"
#include "lib/io/file.h"

namespace moelora {

// Which adapters the paths of a command line, a list of changed files or a tree of checkpoints are.
struct FoundAdapters {
  std::vector<std::string> paths;  // folders, and weights files in one; each once, in order
  std::vector<std::string> notes;  // what was passed over, for people: a line each
  // Folders below those that were given of which nobody knows what is in them, and why.
  std::vector<std::pair<std::string, Error>> unlisted;
};

// `given`, in their order. The config of an adapter is its folder; of its weights files so are two
// and more, shards, and those beside whose folder is named too: a folder is one adapter, however
// many of its files a list names. A file of another kind (README.md) is passed over with a note,
// unless nothing is left then: what it is instead of an adapter is said of it. What is not there
// stays: it may be a hub name.
//
// `recursive`: of each folder, the folders in it and below that hold an adapter's config or
// weights, checkpoint-57 before checkpoint-114. Folders whose name begins with a dot are not
// entered, nor are links to folders, but with Links::all, and then each folder once. Throws Error
// where a folder that was given cannot be listed, or where no adapter is found at all.
FoundAdapters find_adapters(const std::vector<std::string>& given, bool recursive = false,
                            Links links = Links::within, const JobControl& job = {});

}  // namespace moelora
