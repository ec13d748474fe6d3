#include "lib/io/input_watch.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "lib/io/file.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

void put(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

void read_all(const File& file) {
  std::string out(file.size(), '\0');
  file.read(0, out.size(), reinterpret_cast<std::byte*>(out.data()));
}

}  // namespace

TEST_CASE("what a watch saw opened must be what is there at the end, closed or not") {
  const TempFolder folder;
  put(folder.path("a"), "0123");
  put(folder.path("b"), "0123");
  const InputWatch watch;
  const auto fault = [&] { return error_text([&] { watch.check(); }, folder.path()); };
  CHECK(read_text(folder.path("a"), 10) == "0123");
  const FilePtr held = File::open(folder.path("b"));
  CHECK(fault() == "");
  SUBCASE("nothing happens") {}
  SUBCASE("one that was closed is written again") {
    put(folder.path("a"), "01234");
    CHECK(fault() == "a: was changed or replaced while it was read");
  }
  SUBCASE("one that is open is replaced") {
    put(folder.path("c"), "0123");
    fs::rename(folder.path("c"), folder.path("b"));
    CHECK(fault() == "b: was changed or replaced while it was read");
  }
  SUBCASE("one that was never opened does not matter") { put(folder.path("d"), "0"); }
}

TEST_CASE("another thread's files are in a watch that it names") {
  const TempFolder folder;
  put(folder.path("a"), "0123");
  put(folder.path("b"), "0123");
  InputWatch watch;
  std::thread([&] {
    const InputWatch::Here here(watch);
    read_text(folder.path("a"), 10);
  }).join();
  std::thread([&] { read_text(folder.path("b"), 10); }).join();
  put(folder.path("b"), "01234");
  CHECK_NOTHROW(watch.check());
  put(folder.path("a"), "01234");
  CHECK(error_text([&] { watch.check(); }, folder.path()) ==
        "a: was changed or replaced while it was read");
}

TEST_CASE("a read that failed is known, whoever swallowed its error and on whatever thread") {
  const TempFolder folder;
  put(folder.path("a"), "0123");
  const InputWatch watch;
  const FilePtr file = File::open(folder.path("a"));
  fs::resize_file(folder.path("a"), 2);
  std::thread([&] { CHECK_THROWS_AS(read_all(*file), Error); }).join();
  SUBCASE("once") {}
  SUBCASE("twice: the first counts") {
    fs::resize_file(folder.path("a"), 1);
    CHECK_THROWS_AS(read_all(*file), Error);
  }
  put(folder.path("a"), "0123");
  CHECK(error_text([&] { watch.check(); }, folder.path()) ==
        "a: ends at offset 2, had 4 bytes when it was opened");
}

TEST_CASE("no descriptor left is the machine's fault, no such file is not") {
  const TempFolder folder;
  put(folder.path("a"), "0123");
  const InputWatch watch;
  CHECK_THROWS_AS(File::open(folder.path("absent")), Error);
  fs::create_symlink("loop", folder.path("loop"));
  CHECK_THROWS_AS(File::open(folder.path("loop")), Error);
  CHECK_NOTHROW(watch.check());
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit none{0, limit.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  CHECK_THROWS_AS(File::open(folder.path("a")), MachineError);
  setrlimit(RLIMIT_NOFILE, &limit);
  CHECK(error_text([&] { watch.check(); }, folder.path()) == "a: cannot open: Too many open files");
}

TEST_CASE("the innermost watch of the thread has what is opened, and outside of one nobody") {
  const TempFolder folder;
  put(folder.path("a"), "0123");
  const InputWatch outer;
  {
    const InputWatch inner;
    const FilePtr file = File::open(folder.path("a"));
    std::thread([&] { CHECK(InputWatch::opened(FileStamp()) == nullptr); }).join();
    put(folder.path("a"), "0");
    CHECK_THROWS_AS(inner.check(), Error);
  }
  CHECK_NOTHROW(outer.check());
  const FilePtr again = File::open(folder.path("a"));
  put(folder.path("a"), "01");
  CHECK_THROWS_AS(outer.check(), Error);
}
