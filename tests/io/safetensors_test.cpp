#include "lib/io/safetensors.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <set>

#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"
#include "tests/io/safetensors_bytes.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace std::string_literals;

namespace {

std::string bytes_of(const Tensor& tensor) {
  const auto bytes = tensor.read();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Two tensors and metadata, 24 bytes of data.
std::string sound_file() {
  return safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("a":{"dtype":"U8","shape":[8],"data_offsets":[16,24]}})",
      "0123456789abcdefABCDEFGH");
}

class OneFile {
 public:
  explicit OneFile(const std::string& bytes) { write(bytes); }
  void write(const std::string& bytes) { write_text(path(), bytes); }
  std::string path() const { return folder_.path("f.safetensors"); }
  SafetensorsFile open() const { return open_safetensors(path()); }
  std::string fault() const {
    return error_text([&] { open(); }, folder_.path());
  }
  std::string hint() const {
    return error_hint([&] { open(); });
  }

 private:
  TempFolder folder_;
};

}  // namespace

TEST_CASE("tensors of a file are lazy and give its bytes") {
  const OneFile file(sound_file());
  const SafetensorsFile st = file.open();
  REQUIRE(st.tensors.size() == 2);
  CHECK(st.tensors.at("b").shape() == Shape{2, 2});
  CHECK(st.tensors.at("b").dtype() == DType::F32);
  CHECK(bytes_of(st.tensors.at("b")) == "0123456789abcdef");
  CHECK(bytes_of(st.tensors.at("b").transpose(0, 1)) == "012389ab4567cdef");
  CHECK(bytes_of(st.tensors.at("a").slice(0, 2, 3)) == "CDE");
  const Source& source = *st.tensors.at("a").pieces()[0].source;
  CHECK(source.where() == file.path() + ": a");
  CHECK(source.inputs() == std::vector<std::string>{"a"});
  CHECK(source.change() == "");
}

TEST_CASE("the writer learns where the bytes of a plain tensor lie") {
  const OneFile file(sound_file());
  const SafetensorsFile st = file.open();
  const FileRange* const range = file_range(*st.tensors.at("a").pieces()[0].source);
  REQUIRE(range != nullptr);
  CHECK(range->file == st.file.get());
  CHECK(range->begin == st.header.data_begin + 16);
  CHECK(file_range(MemorySource(DType::U8, {})) == nullptr);
}

TEST_CASE("empty tensors, scalars and sub-byte types are read") {
  const OneFile file(
      safetensors_bytes(R"({"empty":{"dtype":"F32","shape":[3,0],"data_offsets":[0,0]},)"
                        R"("four":{"dtype":"F4","shape":[2,4],"data_offsets":[0,4]},)"
                        R"("six":{"dtype":"F6_E2M3","shape":[12],"data_offsets":[4,13]},)"
                        R"("scalar":{"dtype":"U16","shape":[],"data_offsets":[13,15]},)"
                        R"("last":{"dtype":"BOOL","shape":[0],"data_offsets":[15,15]}})",
                        "4444666666666ss"));
  const SafetensorsFile st = file.open();
  CHECK(st.tensors.at("empty").shape() == Shape{3, 0});
  CHECK(bytes_of(st.tensors.at("empty")).empty());
  CHECK(bytes_of(st.tensors.at("last")).empty());
  CHECK(st.tensors.at("scalar").shape().empty());
  CHECK(bytes_of(st.tensors.at("scalar")) == "ss");
  CHECK(st.tensors.at("four").elements() == 8);
  CHECK(bytes_of(st.tensors.at("four")) == "4444");
  CHECK(st.tensors.at("six").elements() == 12);
  CHECK(bytes_of(st.tensors.at("six")) == "666666666");
  CHECK(st.tensors.at("four").pieces()[0].source->granule() == 2);
  CHECK(st.tensors.at("six").pieces()[0].source->granule() == 4);
  CHECK(st.tensors.at("scalar").pieces()[0].source->granule() == 1);
  std::byte part[3];
  st.tensors.at("six").pieces()[0].source->read(4, 4, part);
  CHECK(part[0] == std::byte{'6'});
}

TEST_CASE("all 22 types are read with their width") {
  std::string header = "{";
  uint64_t at = 0;
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    const uint64_t end = at + static_cast<uint64_t>(dtype_bits(dtype));
    header += "\"t" + std::to_string(i) + "\":{\"dtype\":\"" + std::string(dtype_name(dtype)) +
              "\",\"shape\":[2,4],\"data_offsets\":[" + std::to_string(at) + "," +
              std::to_string(end) + "]},";
    at = end;
  }
  header.back() = '}';
  const OneFile file(safetensors_bytes(header, std::string(at, 'x')));
  const SafetensorsFile st = file.open();
  for (int i = 0; i < kDTypeCount; ++i) {
    const Tensor& tensor = st.tensors.at("t" + std::to_string(i));
    CHECK(tensor.dtype() == static_cast<DType>(i));
    CHECK(tensor.bytes() == static_cast<uint64_t>(dtype_bits(tensor.dtype())));
  }
}

TEST_CASE("a dim beyond 63 bits may stand beside a leading 0 only") {
  const auto fault = [](const std::string& shape) {
    return OneFile(
               safetensors_bytes(
                   "{\"z\":{\"dtype\":\"U8\",\"shape\":" + shape + ",\"data_offsets\":[0,0]}}", ""))
        .fault();
  };
  CHECK(fault("[0,18446744073709551615,18446744073709551615]") == "");
  CHECK(fault("[4611686018427387904,2,0]") ==
        "f.safetensors: z: has shape [4611686018427387904, 2, 0], whose size does not fit 63 bits");
  CHECK(fault("[4611686018427387904,4,0]") ==
        "f.safetensors: z: has shape [4611686018427387904, 4, 0] of U8: its size does not fit 64 "
        "bits");
}

TEST_CASE("a file cut at any byte is refused") {
  const std::string whole = sound_file();
  OneFile file(whole);
  CHECK(file.fault() == "");
  std::set<std::string> texts;
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    file.write(whole.substr(0, size));
    const std::string text = file.fault();
    CHECK(text.starts_with("f.safetensors: "));
    texts.insert(text);
  }
  CHECK(texts.size() == whole.size());  // each says how much is there
}

TEST_CASE("a file with any bit of its header flipped is refused or read within its bounds") {
  const std::string whole = sound_file();
  OneFile file(whole);
  int accepted = 0, refused = 0;
  for (size_t at = 0; at < whole.size() - 24; ++at)
    for (int bit = 0; bit < 8; ++bit) {
      CAPTURE(at);
      CAPTURE(bit);
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
      file.write(bytes);
      try {
        const SafetensorsFile st = file.open();
        uint64_t sum = 0;
        for (const auto& entry : st.tensors) sum += bytes_of(entry.second).size();
        CHECK(sum == 24);
        ++accepted;
      } catch (const Error&) {
        ++refused;
      }
    }
  CHECK(accepted > 50);  // other names, metadata or types of the same width
  CHECK(refused > 1000);
}

TEST_CASE("what only calls itself safetensors is named for what it is") {
  const auto fault = [](const std::string& bytes) {
    return OneFile(bytes + std::string(64, 'x')).fault();
  };
  CHECK(fault("PK\3\4\0\0\x08\x08"s) ==
        "f.safetensors: is a zip archive (torch.save writes one), not a safetensors file");
  for (const char protocol : {'\2', '\3', '\4', '\5'})
    CHECK(fault("\x80"s + protocol + "}q") ==
          "f.safetensors: is a bare Python pickle, not a safetensors file");
  CHECK(fault("version https://git-lfs.github.com/spec/v1\n") ==
        "f.safetensors: is a Git LFS pointer, not a safetensors file");
  CHECK(fault("GGUF\3\0\0\0"s) == "f.safetensors: is a GGUF file, not a safetensors file");
  CHECK(fault("\x89HDF\r\n\x1a\n") == "f.safetensors: is an HDF5 file, not a safetensors file");
  CHECK(fault("<!DOCTYPE html>") == "f.safetensors: is an HTML page, not a safetensors file");
  CHECK(fault("{\"r\": 16}") == "f.safetensors: is JSON text, not a safetensors file");
  CHECK(
      fault("12345678") ==
      "f.safetensors: its header is said to have 4050765991979987505 bytes, at most 100000000 are "
      "read");
  CHECK(OneFile("PK\3\4\0\0\x08\x08"s).hint().find("safetensors.torch") != std::string::npos);
  CHECK(OneFile("version https://git-lfs.github.com/spec/v1\n").hint() ==
        "Fetch the file itself: git lfs pull.");
}

TEST_CASE("the length of a header has its limits") {
  const auto file = [](uint64_t length) {
    std::string out;
    for (int i = 0; i < 8; ++i) out += static_cast<char>(length >> (8 * i) & 0xFF);
    return OneFile(out + "{}").fault();
  };
  CHECK(file(2) == "");
  CHECK(file(3) ==
        "f.safetensors: its header is said to have 3 bytes, the file has 2 after the length");
  CHECK(
      file(100'000'000) ==
      "f.safetensors: its header is said to have 100000000 bytes, the file has 2 after the length");
  CHECK(file(100'000'001) ==
        "f.safetensors: its header is said to have 100000001 bytes, at most 100000000 are read");
  CHECK(file(UINT64_MAX) ==
        "f.safetensors: its header is said to have 18446744073709551615 bytes, at most 100000000 "
        "are read");
  CHECK(file(UINT64_MAX - 7) != "");  // 8 + length wraps to 0
}
