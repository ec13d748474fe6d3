#pragma once

#include <optional>
#include <string>
#include <vector>

namespace moelora {

// Work in progress: folders and files under temporary names beside where they will be,
// ".NAME.tmp.PID.RANDOM", and the one step that gives them their names. What a signal or a failure
// ends is removed file by file, each of which is known: that takes no file descriptor, and nobody
// else's file can go with it.

// Makes a temporary folder beside `target` and returns its path. Throws Error.
std::string stage_folder(const std::string& target);

// The same for a file: its path, and a descriptor that writes it.
struct StagedFile {
  std::string path;
  int fd = -1;
};
StagedFile stage_file(const std::string& target);

// Creates a file in a temporary folder; -1, with errno, when it cannot be created.
int open_staged(const std::string& folder, const std::string& name);

// A folder in a temporary folder, whose files are "NAME/FILE" there. Throws Error, which names
// `where`.
void make_staged_folder(const std::string& folder, const std::string& name,
                        const std::string& where);

// Removes what is under a temporary name. "" or, where something stays, why.
std::string remove_staged(const std::string& path);

// Gives a finished folder its name in one step that nobody can see half done, and syncs the parent
// when durable. Where `replaced` has the files of a folder that is there already, the two are
// exchanged and those files and that folder removed. On an Error, which names `where`, `target` is
// as it was. Returns what to say of a replaced folder that could not be removed, else "".
std::string publish_folder(const std::string& temporary, const std::string& target,
                           const std::string& where,
                           const std::optional<std::vector<std::string>>& replaced, bool durable);

// The same for a file, which replaces one that is there.
void publish_file(const std::string& temporary, const std::string& target,
                  const std::string& where);

// fsync of a folder. Throws Error, which names `where`.
void sync_folder(const std::string& path, const std::string& where);

// Call once at the start of main: SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGXCPU remove what is under
// temporary names and are raised again; SIGPIPE and SIGXFSZ become errors of write.
void install_signal_handlers();

}  // namespace moelora
