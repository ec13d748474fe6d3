#include "lib/io/npz.h"

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>

#include "tests/io/error_text.h"
#include "tests/io/npy_bytes.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kHeader = "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }";

std::string array(int32_t first) {
  return npy_bytes(kHeader, raw<int32_t>({first, first + 1, first + 2}));
}

NpzBytes sound() { return npz_bytes({{"a.npy", array(1)}, {"b.npy", array(4), true}}); }

class Npz {
 public:
  std::map<std::string, NpyArray> read(const std::string& bytes) {
    const std::string path = folder_.path("f.npz");
    std::ofstream(path, std::ios::binary) << bytes;
    return read_npz(*File::open(path));
  }
  // Without the folder.
  std::string refusal(const std::string& bytes) {
    const std::string text = error_text([&] { read(bytes); });
    const size_t at = text.find("f.npz");
    return at == std::string::npos ? text : text.substr(at);
  }

 private:
  TempFolder folder_;
};

}  // namespace

TEST_CASE("arrays of an archive are read by name, stored and deflated") {
  const auto arrays = Npz().read(sound().bytes);
  REQUIRE(arrays.size() == 2);
  CHECK(arrays.at("a").header.shape == Shape{3});
  CHECK(std::memcmp(arrays.at("a").data.data(), raw<int32_t>({1, 2, 3}).data(), 12) == 0);
  CHECK(std::memcmp(arrays.at("b").data.data(), raw<int32_t>({4, 5, 6}).data(), 12) == 0);
}

TEST_CASE("an archive that contradicts itself is refused") {
  Npz npz;
  struct Fault {
    const char* what;
    void (*spoil)(NpzBytes& zip);
    const char* message;
  };
  const Fault faults[] = {
      {"cut", [](NpzBytes& z) { z.bytes.pop_back(); },
       "f.npz: does not end with the end record of a zip archive (a comment, or cut short)"},
      {"longer", [](NpzBytes& z) { z.bytes += "x"; },
       "f.npz: does not end with the end record of a zip archive (a comment, or cut short)"},
      {"entries", [](NpzBytes& z) { z.put(z.end + 8, 3, 2); },
       "f.npz: has an end record that numpy does not write"},
      {"more entries",
       [](NpzBytes& z) {
         z.put(z.end + 8, 3, 2);
         z.put(z.end + 10, 3, 2);
       },
       "f.npz: has a directory that was cut short"},
      {"fewer entries",
       [](NpzBytes& z) {
         z.put(z.end + 8, 1, 2);
         z.put(z.end + 10, 1, 2);
       },
       "f.npz: has bytes in its directory after the last record"},
      {"no entries",
       [](NpzBytes& z) {
         z.bytes = z.bytes.substr(z.end);
         z.put(8, 0, 4);
         z.put(12, 0, 8);
       },
       "f.npz: is empty, or has bytes before its first record"},
      {"directory elsewhere", [](NpzBytes& z) { z.put(z.end + 16, 1, 4); },
       "f.npz: has a directory that does not lie where its end record says"},
      {"encrypted", [](NpzBytes& z) { z.put(z.central[0] + 8, 1, 2); },
       "f.npz: a.npy: has the zip flags 0x0001 (encrypted?)"},
      {"method", [](NpzBytes& z) { z.put(z.central[0] + 10, 14, 2); },
       "f.npz: a.npy: is compressed by method 14, read are 0 and 8"},
      {"name", [](NpzBytes& z) { z.put(z.central[0] + 46, 'x', 1); },
       "f.npz: x.npy: has a local header that differs from the directory"},
      {"no array", [](NpzBytes& z) { z.put(z.central[0] + 50, 'x', 1); },
       "f.npz: a.npx: is no array: its name does not end in .npy"},
      {"crc", [](NpzBytes& z) { z.put(z.local[0] + 30 + 5 + 20 + 130, 9, 1); },
       "f.npz: a.npy: is damaged: its CRC-32 is another"},
      {"deflated data", [](NpzBytes& z) { z.put(z.local[1] + 30 + 5 + 20, 0xFF, 1); },
       "f.npz: b.npy: is damaged: it does not inflate to the size it declares"},
      {"stored size", [](NpzBytes& z) { z.put(z.central[0] + 24, 1, 4); },
       "f.npz: a.npy: has another size stored than unpacked"},
      {"overlap",
       [](NpzBytes& z) {
         z.put(z.central[0] + 20, 500, 4);
         z.put(z.central[0] + 24, 500, 4);
       },
       "f.npz: a.npy: overlaps what lies after it, or leaves a gap"},
      {"order",
       [](NpzBytes& z) {
         z.put(z.central[0] + 42, z.local[1], 4);
         z.put(z.central[1] + 42, z.local[0], 4);
       },
       "f.npz: b.npy: does not lie after the record before it"},
      {"local size twice", [](NpzBytes& z) { z.put(z.local[0] + 22, 141, 4); },
       "f.npz: a.npy: has a zip64 field that differs from its sizes"},
      {"local sizes", [](NpzBytes& z) { z.put(z.local[0] + 30 + 5 + 4, 141, 8); },
       "f.npz: a.npy: has a local header that differs from the directory"},
      {"too large", [](NpzBytes& z) { z.put(z.central[1] + 24, 0x7FFFFFFF, 4); },
       "f.npz: b.npy: makes the arrays larger than 536870912 bytes"},
      {"bomb", [](NpzBytes& z) { z.put(z.central[1] + 24, 0x1FFFFF00, 4); },
       "f.npz: b.npy: declares more bytes than deflate can hold in"},
  };
  for (const Fault& fault : faults) {
    CAPTURE(std::string(fault.what));
    NpzBytes zip = sound();
    fault.spoil(zip);
    CHECK_MESSAGE(npz.refusal(zip.bytes).starts_with(fault.message), npz.refusal(zip.bytes));
  }
  CHECK(npz.refusal(npz_bytes({{"a.npy", array(1)}, {"a.npy", array(1)}}).bytes)
            .starts_with("f.npz: a.npy: stands twice in the archive"));
  CHECK(npz.refusal(npz_bytes({{"a.npy", "text"}}).bytes)
            .starts_with("f.npz: a.npy: ends inside its .npy header"));
  CHECK(npz.refusal("x").starts_with("f.npz: is too short for a zip archive"));
}
