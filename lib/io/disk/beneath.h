#pragma once

#include <string>

namespace moelora {

// Opening files of a folder that strangers filled. Links are followed as long as they stay within
// the folder; in a hub cache, models--ORG--NAME/snapshots/COMMIT, within the repository's folder,
// whose blobs its snapshots link to. The way to the folder itself may hold any link: the user
// named it.

// Opens `name` (a file, or one in folders below: "a/b") for reading, FIFOs without waiting. Returns
// -1 with errno when it cannot be opened; EXDEV where a link leads out. One call of the kernel
// where it can say that (openat2, Linux 5.6), else open_by_steps.
int open_beneath(const std::string& folder, const std::string& name);

// The same, every folder and link on the way opened by itself without following it: for old
// kernels, for absolute links that stay within, and for hub caches.
int open_by_steps(const std::string& folder, const std::string& name);

}  // namespace moelora
