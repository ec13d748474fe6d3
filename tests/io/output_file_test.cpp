#include "lib/io/output_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

#include "lib/base/error.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

constexpr size_t kMegabyte = 1 << 20;

int open_new(const std::string& path) {
  return open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

std::vector<std::byte> some_bytes(size_t count) {
  std::vector<std::byte> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<std::byte>(i * 2654435761U >> 13);
  return out;
}

// The folders that the tests write in: of the disk, and of memory, where a mapping is always used.
std::vector<std::string> places() {
  std::vector<std::string> out = {std::filesystem::temp_directory_path()};
  if (std::filesystem::is_directory("/dev/shm")) out.emplace_back("/dev/shm");
  return out;
}

}  // namespace

TEST_CASE("large and small writes by many threads, at any offset, end where they belong") {
  for (const std::string& place : places()) {
    CAPTURE(place);
    const TempFolder temp(place);
    const std::string path = temp.path("weights");
    const std::vector<std::byte> bytes = some_bytes(23 * kMegabyte + 12345);
    OutputFile file(open_new(path), "OUT/weights", bytes.size(), false);
    // Neither begins nor lengths are those of pages; every third is too small for a mapping.
    std::vector<size_t> cuts = {0, 8, 12000};
    while (cuts.back() < bytes.size())
      cuts.push_back(std::min(bytes.size(),
                              cuts.back() + (cuts.size() % 3 == 0 ? 4097 : 2 * kMegabyte + 1001)));
    {
      std::vector<std::jthread> threads;
      for (size_t t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
          for (size_t i = t; i + 1 < cuts.size(); i += 4)
            file.write(cuts[i], std::span(bytes).subspan(cuts[i], cuts[i + 1] - cuts[i]));
        });
    }
    file.finish();
    std::vector<std::byte> found(bytes.size());
    std::ifstream(path).read(reinterpret_cast<char*>(found.data()),
                             static_cast<std::streamsize>(found.size()));
    CHECK(std::filesystem::file_size(path) == bytes.size());
    CHECK(found == bytes);
  }
}

TEST_CASE("a page that cannot be had while a mapping is written is an error, not a signal") {
  const char* const memory = "/dev/shm";
  if (!std::filesystem::is_directory(memory)) {
    MESSAGE("skipped: no tmpfs here");
    return;
  }
  const TempFolder temp(memory);
  const std::string path = temp.path("weights");
  const std::vector<std::byte> bytes = some_bytes(4 * kMegabyte);
  OutputFile file(open_new(path), "OUT/weights", bytes.size(), false);
  file.write(0, bytes);
  REQUIRE(truncate(path.c_str(), kMegabyte) == 0);  // by somebody else
  std::string said;
  try {
    file.write(0, bytes);
  } catch (const Error& error) {
    said = error.what();
  }
  CHECK(said == "OUT/weights: cannot write 4194304 bytes at 0: Input/output error");
  file.write(0, std::span(bytes).first(kMegabyte));  // what is there can be written as before
}
