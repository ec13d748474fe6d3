#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>

#include "lib/io/disk/beneath.h"
#include "lib/io/file.h"
#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

// "in" with a stranger's files, "secret" beside it.
class Strangers {
 public:
  Strangers() {
    fs::create_directories(temp_.path("in/below"));
    write_text(temp_.path("in/own"), "own");
    write_text(temp_.path("in/below/deep"), "deep");
    write_text(temp_.path("secret"), "secret");
  }

  std::string path(const std::string& name = "") const { return temp_.path(name); }

  // in/NAME becomes a link to TARGET.
  void link(const std::string& name, const std::string& target) const {
    fs::create_symlink(target, temp_.path("in/" + name));
  }

  // What in/NAME holds, or why it cannot be opened: in one call of the kernel or step by step.
  std::string content(const std::string& name, const std::string& folder = "in") const {
    const std::string by_kernel = through(open_beneath(path(folder), name));
    CHECK(through(open_by_steps(path(folder), name)) == by_kernel);
    return by_kernel;
  }

 private:
  static std::string through(int fd) {
    if (fd < 0) return system_text(errno);
    char text[16];
    const ssize_t n = read(fd, text, sizeof text);
    const std::string out = n < 0 ? system_text(errno) : std::string(text, static_cast<size_t>(n));
    close(fd);
    return out;
  }

  TempFolder temp_;
};

const std::string kOut = system_text(EXDEV);

}  // namespace

TEST_CASE("a folder's files are opened through links that stay within it") {
  const Strangers strangers;
  CHECK(strangers.content("own") == "own");
  CHECK(strangers.content("below/deep") == "deep");
  CHECK(strangers.content("below/../own") == "own");
  const std::pair<std::string, std::string> links[] = {
      {"to_own", "own"},
      {"to_deep", "below/deep"},
      {"to_folder", "below"},
      {"around", "below/../own"},
      {"twice", "to_deep"},
      {"whole", strangers.path("in/below/deep")},
      {"below/up", "../own"},
      {"below/whole", strangers.path("in/own")},
      {"whole_folder", strangers.path("in/below")}};
  for (const auto& [name, target] : links) strangers.link(name, target);
  for (const char* name : {"to_own", "around", "below/up", "below/whole"})
    CHECK(strangers.content(name) == "own");
  for (const char* name : {"to_deep", "to_folder/deep", "twice", "whole", "whole_folder/deep"})
    CHECK(strangers.content(name) == "deep");
}

TEST_CASE("no link leads out of a folder, however it is written") {
  const Strangers strangers;
  const std::pair<std::string, std::string> links[] = {
      {"whole", strangers.path("secret")},
      {"up", "../secret"},
      {"below/up", "../../secret"},
      {"folder", ".."},
      {"root", "/"},
      {"around", "below/../../secret"},
      {"twice", "up"},
      {"beside", strangers.path("in") + "x/secret"},
      {"device", "/dev/null"},
      {"descriptor", "/proc/self/fd/0"},
      {"through", "/proc/self/cwd/../secret"},
      {"back", "../in/own"}};
  for (const auto& [name, target] : links) strangers.link(name, target);
  fs::create_directory(strangers.path("inx"));
  write_text(strangers.path("inx/secret"), "secret");
  for (const char* name :
       {"whole", "up", "below/up", "folder/secret", "around", "twice", "beside", "device", "back"})
    CHECK(strangers.content(name) == kOut);
  CHECK(strangers.content("root" + strangers.path("secret")) == kOut);
  CHECK(strangers.content("../secret") == kOut);
  CHECK(strangers.content("descriptor") != "");  // out, or nothing to be found; never opened
}

TEST_CASE("the way to the folder may hold any link, and a name may lead nowhere") {
  const Strangers strangers;
  fs::create_symlink("in", strangers.path("named"));
  CHECK(strangers.content("own", "named") == "own");
  strangers.link("gone", "nowhere");
  strangers.link("a", "b");
  strangers.link("b", "a");
  CHECK(strangers.content("gone") == system_text(ENOENT));
  CHECK(strangers.content("a") == system_text(ELOOP));
  CHECK(strangers.content("own/below") == system_text(ENOTDIR));
  CHECK(strangers.content("below") == system_text(EISDIR));
  CHECK(strangers.content("own", "no_such_folder") == system_text(ENOENT));
}

TEST_CASE("a snapshot of a hub cache links to the blobs of its repository, and to no other") {
  const TempFolder temp;
  for (const char* name : {"ours", "theirs"}) {
    const std::string repository = temp.path(std::string("hub/models--") + name);
    fs::create_directories(repository + "/blobs");
    fs::create_directories(repository + "/snapshots/c0ffee/below");
    write_text(repository + "/blobs/1f2e", name);
  }
  const std::string snapshot = temp.path("hub/models--ours/snapshots/c0ffee");
  fs::create_symlink("../../blobs/1f2e", snapshot + "/weights");
  fs::create_symlink("../../../blobs/1f2e", snapshot + "/below/weights");
  fs::create_symlink("../../../models--theirs/blobs/1f2e", snapshot + "/stolen");
  fs::create_symlink("hub/models--ours/snapshots/c0ffee", temp.path("named"));
  const auto opens = [](const std::string& folder, const std::string& name) {
    const int fd = open_beneath(folder, name);
    if (fd >= 0) close(fd);
    return fd >= 0;
  };
  CHECK(opens(snapshot, "weights"));
  CHECK(opens(snapshot, "below/weights"));
  CHECK(opens(snapshot + "/below", "weights"));
  CHECK(opens(temp.path("named"), "weights"));
  CHECK_FALSE(opens(snapshot, "stolen"));
  CHECK(errno == EXDEV);
  // The same links in a folder that is no snapshot.
  fs::rename(temp.path("hub/models--ours"), temp.path("hub/ours"));
  CHECK_FALSE(opens(temp.path("hub/ours/snapshots/c0ffee"), "weights"));
}

TEST_CASE("weights and configs that leave their folder say so, and are read when they may be") {
  const Strangers strangers;
  strangers.link("up", "../secret");
  const auto fault = [&](const InputPath& path) {
    return error_text([&] { File::open(path); }, strangers.path());
  };
  CHECK(fault({strangers.path("in"), "up", Links::within}) ==
        "in/up: is a link to ../secret, which leaves its folder");
  CHECK(error_hint([&] {
          File::open({strangers.path("in"), "up", Links::within});
        }) == "pass --follow-links where you trust it, or copy the file itself there");
  CHECK(fault({strangers.path("in"), "up", Links::all}) == "");
  CHECK(fault(strangers.path("in/up")) == "");  // as the user named it
}

TEST_CASE("side files go along, but none that a link brings in from outside") {
  const Strangers strangers;
  strangers.link("README.md", "../secret");
  strangers.link("LICENSE", "own");
  strangers.link("vocab.json", "nowhere");
  strangers.link("merges.txt", "merges.txt");
  strangers.link("tokenizer", "below");
  REQUIRE(mkfifo(strangers.path("in/NOTICE").c_str(), 0600) == 0);
  std::vector<std::string> notes;
  const auto is_open = [&](const std::string& name) {
    return open_side_file(strangers.path("in"), name, notes) != nullptr;
  };
  CHECK(is_open("own"));
  CHECK(is_open("LICENSE"));
  CHECK_FALSE(is_open("tokenizer"));
  CHECK(notes.empty());
  for (const char* name : {"README.md", "vocab.json", "merges.txt", "NOTICE"})
    CHECK_FALSE(is_open(name));
  const std::string in = strangers.path("in/");
  CHECK(notes ==
        std::vector<std::string>{
            in + "README.md is not copied: it is a link to ../secret, which leaves its folder",
            in + "vocab.json is not copied: it is a link to nowhere, which is not there",
            in + "merges.txt is not copied: it cannot be opened: Too many levels of symbolic links",
            in + "NOTICE is not copied: it is a FIFO"});
}

TEST_CASE("a file that was opened is known as that, whatever it is called") {
  const Strangers strangers;
  File::open(strangers.path("secret"));
  fs::create_hard_link(strangers.path("secret"), strangers.path("hard"));
  fs::create_symlink("secret", strangers.path("soft"));
  for (const char* name : {"secret", "hard", "soft"}) CHECK(File::was_opened(strangers.path(name)));
  CHECK_FALSE(File::was_opened("/proc/self/exe"));
  CHECK_FALSE(File::was_opened(strangers.path("nothing")));
}
