#include "lib/io/report_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "lib/io/disk/staging.h"
#include "lib/io/file.h"
#include "tests/io/child.h"
#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

using Names = std::vector<std::string>;

std::string fault(const std::string& path, const std::string& text = "report") {
  return error_text([&] { ReportFile(path).write(text); });
}

}  // namespace

TEST_CASE("a report appears whole or not at all") {
  const TempFolder temp;
  const std::string path = temp.path("r");
  const auto look = [&](const std::string& before) {
    {
      ReportFile file(path);
      CHECK(read_text(path) == before);
      CHECK(temp.names().size() == (before.empty() ? 1 : 2));
    }
    CHECK(read_text(path) == before);  // not written: what failed before
    ReportFile(path).write("report");
    CHECK(read_text(path) == "report");
    CHECK(temp.names() == Names{"r"});
  };
  SUBCASE("a new one") {
    look("");
    write_text(temp.path("other"), "");
    struct stat r {
    }, other{};
    REQUIRE(stat(path.c_str(), &r) == 0);
    REQUIRE(stat(temp.path("other").c_str(), &other) == 0);
    CHECK(r.st_mode == other.st_mode);
  }
  SUBCASE("in the place of an old one, whose mode it keeps") {
    write_text(path, "old");
    chmod(path.c_str(), 0640);
    look("old");
    struct stat s {};
    REQUIRE(stat(path.c_str(), &s) == 0);
    CHECK((s.st_mode & 07777) == 0640);
  }
}

TEST_CASE("a report on a full disk leaves the one before") {
  const TempFolder temp;
  const SmallDisk disk(temp.path("disk"), "64k");
  if (!disk.mounted()) {
    MESSAGE("skipped: cannot mount a tmpfs here");
    return;
  }
  const std::string path = temp.path("disk/r");
  write_text(path, "good");
  CHECK(fault(path, std::string(100'000, 'x')) ==
        path + ": could not be written completely: No space left on device");
  CHECK(read_text(path) == "good");
}

TEST_CASE("a report takes no input's place, by whatever name") {
  const TempFolder temp;
  const std::string input = temp.path("input");
  write_text(input, "weights");
  fs::create_symlink("input", temp.path("soft"));
  fs::create_hard_link(input, temp.path("hard"));
  for (const char* name : {"input", "soft", "hard"}) {
    const std::string path = temp.path(name);
    const ReportFile file(path);
    CHECK(error_text([&] { file.refuse(input); }) == path + ": is the input " + input);
    file.refuse(temp.path("nothing"));
  }
  File::open(input);  // one that no command line names
  for (const char* name : {"input", "soft", "hard"})
    CHECK(fault(temp.path(name)) == temp.path(name) + ": is an input: it was read");
  CHECK(read_text(input) == "weights");
  CHECK(temp.names() == Names{"hard", "input", "soft"});
}

TEST_CASE("a report goes through links to where a file would be made") {
  const TempFolder temp;
  fs::create_directory(temp.path("below"));
  fs::create_symlink("below/r", temp.path("link"));
  for (const char* text : {"first", "second"}) {
    ReportFile(temp.path("link")).write(text);
    CHECK(fs::is_symlink(temp.path("link")));
    CHECK(read_text(temp.path("below/r")) == text);
  }
  fs::create_symlink("loop", temp.path("loop"));
  CHECK(fault(temp.path("loop")) ==
        temp.path("loop") + ": cannot be written: Too many levels of symbolic links");
}

TEST_CASE("a report that cannot be written is refused before there is any") {
  const TempFolder temp;
  const auto opened = [](const std::string& path) {
    return error_text([&] { const ReportFile file(path); });
  };
  CHECK(opened(temp.path("no/r")) ==
        temp.path("no/r") + ": cannot be written: No such file or directory");
  CHECK(opened(temp.path()) == temp.path() + ": cannot be written: Is a directory");
  CHECK(opened(temp.path("r/")) ==
        temp.path("r/") + ": cannot be written: No such file or directory");
  CHECK(opened("/proc/self/no").find("/proc/self/no: cannot be written: ") == 0);
}

TEST_CASE("pipes, devices and open descriptors are written as they are") {
  const TempFolder temp;
  CHECK(fault("/dev/null") == "");
  CHECK(fault("/dev/full") ==
        "/dev/full: could not be written completely: No space left on device");
  write_text(temp.path("log"), "before\n");
  const int log = open(temp.path("log").c_str(), O_WRONLY | O_APPEND);
  CHECK(fault("/dev/fd/" + std::to_string(log), "report\n") == "");
  close(log);
  CHECK(read_text(temp.path("log")) == "before\nreport\n");
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  CHECK(fault("/dev/fd/" + std::to_string(ends[1])) == "");
  char text[16];
  CHECK(std::string(text, static_cast<size_t>(read(ends[0], text, sizeof text))) == "report");
  close(ends[0]);
  close(ends[1]);
  CHECK(temp.names() == Names{"log"});
}

TEST_CASE("a signal takes an unfinished report along") {
  const TempFolder temp;
  write_text(temp.path("r"), "old");
  const int status = run_child([&] {
    install_signal_handlers();
    const ReportFile file(temp.path("r"));
    kill(getpid(), SIGTERM);
    for (;;) pause();
    return 0;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(temp.names() == Names{"r"});
  CHECK(read_text(temp.path("r")) == "old");
}

TEST_CASE("no file gets the number of a standard stream that was closed") {
  const int status = run_child([] {
    for (const int fd : {0, 1, 2}) close(fd);
    hold_standard_streams();
    const int next = open("/dev/null", O_RDONLY);
    const bool held = write(1, "x", 1) < 0 && write(2, "x", 1) < 0;
    return next > 2 && held ? 7 : 8;
  });
  CHECK(exit_code(status) == 7);
}
