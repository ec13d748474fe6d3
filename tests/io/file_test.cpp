#include "lib/io/file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

std::string read_all(const File& file, uint64_t offset, uint64_t count) {
  std::string out(count, '?');
  file.read(offset, count, reinterpret_cast<std::byte*>(out.data()));
  return out;
}

}  // namespace

TEST_CASE("a file gives the bytes of any range within it, and an Error beyond") {
  const TempFolder folder;
  write_text(folder.path("f"), "0123456789");
  const FilePtr file = File::open(folder.path("f"));
  const auto fault = [&](uint64_t offset, uint64_t count) {
    return error_text([&] { read_all(*file, offset, count); }, folder.path());
  };
  CHECK(file->size() == 10);
  CHECK(read_all(*file, 0, 10) == "0123456789");
  CHECK(read_all(*file, 3, 4) == "3456");
  CHECK(read_all(*file, 10, 0).empty());
  CHECK(fault(8, 3) == "f: cannot read 3 bytes at offset 8: the file has 10 bytes");
  CHECK(fault(11, 0) == "f: cannot read 0 bytes at offset 11: the file has 10 bytes");
  std::byte one;
  CHECK(error_text([&] { file->read(1, UINT64_MAX, &one); }, folder.path()) ==
        "f: cannot read 18446744073709551615 bytes at offset 1: the file has 10 bytes");
}

TEST_CASE("a file that shrinks after it was opened is an Error, not a signal") {
  const TempFolder folder;
  write_text(folder.path("f"), std::string(100'000, 'x'));
  const FilePtr file = File::open(folder.path("f"));
  fs::resize_file(folder.path("f"), 60'000);
  CHECK(read_all(*file, 0, 60'000).size() == 60'000);
  CHECK(error_text([&] { read_all(*file, 0, 100'000); }, folder.path()) ==
        "f: ends at offset 60000, had 100000 bytes when it was opened");
}

TEST_CASE("only regular files are opened, and nothing else blocks") {
  const TempFolder folder;
  const auto fault = [&](const std::string& path) {
    return error_text([&] { File::open(path); }, folder.path());
  };
  write_text(folder.path("f"), "x");
  CHECK(fault(folder.path("f")) == "");
  SUBCASE("absent") {
    CHECK(fault(folder.path("no")) == "no: cannot open: No such file or directory");
  }
  SUBCASE("a folder") {
    CHECK(fault(folder.path()) == folder.path() + ": is a folder, expected a regular file");
  }
  SUBCASE("a FIFO") {
    REQUIRE(mkfifo(folder.path("p").c_str(), 0600) == 0);
    CHECK(fault(folder.path("p")) == "p: is a FIFO, expected a regular file");
  }
  SUBCASE("a device") {
    CHECK(fault("/dev/zero") == "/dev/zero: is a device, expected a regular file");
  }
  SUBCASE("a loop of links") {
    fs::create_symlink("b", folder.path("a"));
    fs::create_symlink("a", folder.path("b"));
    CHECK(fault(folder.path("a")) == "a: cannot open: Too many levels of symbolic links");
  }
}

TEST_CASE("a change behind our back is noticed") {
  const TempFolder folder;
  const std::string path = folder.path("f");
  write_text(path, "0123456789");
  const FilePtr file = File::open(path);
  const auto fault = [&] { return error_text([&] { file->check_unchanged(); }, folder.path()); };
  const auto mtime = fs::last_write_time(path);
  CHECK(fault() == "");
  SUBCASE("another size, same time") {
    write_text(path, "0123");
    fs::last_write_time(path, mtime);
    CHECK(fault() == "f: was changed or replaced while it was read");
  }
  SUBCASE("same size, another time") {
    fs::last_write_time(path, mtime + std::chrono::nanoseconds(1000));
    CHECK(fault() == "f: was changed or replaced while it was read");
  }
  SUBCASE("another file under its name, same size and time") {
    write_text(folder.path("g"), "9876543210");
    fs::last_write_time(folder.path("g"), mtime);
    fs::rename(folder.path("g"), path);
    CHECK(fault() == "f: was changed or replaced while it was read");
  }
  SUBCASE("no file under its name") {
    fs::remove(path);
    CHECK(fault() == "f: was removed while it was read: No such file or directory");
  }
}

TEST_CASE("a file knows itself through symbolic and hard links") {
  const TempFolder folder;
  write_text(folder.path("f"), "x");
  write_text(folder.path("g"), "x");
  fs::create_symlink("f", folder.path("soft"));
  fs::create_hard_link(folder.path("f"), folder.path("hard"));
  const FilePtr file = File::open(folder.path("f"));
  CHECK(file->is_same_file(folder.path("f")));
  CHECK(file->is_same_file(folder.path("soft")));
  CHECK(file->is_same_file(folder.path("hard")));
  CHECK_FALSE(file->is_same_file(folder.path("g")));
  CHECK_FALSE(file->is_same_file(folder.path("absent")));
}
