#include <doctest/doctest.h>

#include <cstring>

#include "lib/base/error.h"
#include "lib/io/safetensors.h"
#include "tests/io/safetensors_bytes.h"

using namespace moelora;

namespace {

std::string json_of(const SafetensorsPlan& plan) {
  uint64_t length = 0;
  std::memcpy(&length, plan.header.data(), 8);
  CHECK(plan.header.size() == 8 + length);
  return plan.header.substr(8);
}

}  // namespace

TEST_CASE("a header is the one that Python's safetensors 0.8.0 writes, byte for byte") {
  const auto of = [](DType dtype, const Shape& shape) { return Tensor::zeros(dtype, shape); };
  const SafetensorsPlan plan = plan_safetensors({{"z", of(DType::U8, {2})},
                                                 {"a\"b\\c", of(DType::F32, {1})},
                                                 {"tab\tnew\nbell\x07", of(DType::F16, {1, 1})},
                                                 {"é/ü\x7f", of(DType::F16, {})},
                                                 {"b", of(DType::BF16, {2, 0, 3})},
                                                 {"k", of(DType::I64, {1})},
                                                 {"m", of(DType::BOOL, {1})},
                                                 {"n", of(DType::U64, {1})},
                                                 {"f8", of(DType::F8_E4M3, {4})},
                                                 {"f8b", of(DType::F8_E5M2, {4})},
                                                 {"aa", of(DType::F64, {1})},
                                                 {"e8", of(DType::F8_E8M0, {2})},
                                                 {"c64", of(DType::C64, {1})},
                                                 {"i32", of(DType::I32, {1})},
                                                 {"u32", of(DType::U32, {1})},
                                                 {"i16", of(DType::I16, {1})},
                                                 {"u16", of(DType::U16, {1})},
                                                 {"i8", of(DType::I8, {1})},
                                                 {"f4", of(DType::F4, {2, 4})}},
                                                {{"format", "pt"}});
  // safetensors.serialize of the same tensors; the DEL in the second name of F16 stands raw.
  const std::string python =
      R"({"__metadata__":{"format":"pt"},)"
      R"("n":{"dtype":"U64","shape":[1],"data_offsets":[0,8]},)"
      R"("k":{"dtype":"I64","shape":[1],"data_offsets":[8,16]},)"
      R"("aa":{"dtype":"F64","shape":[1],"data_offsets":[16,24]},)"
      R"("c64":{"dtype":"C64","shape":[1],"data_offsets":[24,32]},)"
      R"("a\"b\\c":{"dtype":"F32","shape":[1],"data_offsets":[32,36]},)"
      R"("u32":{"dtype":"U32","shape":[1],"data_offsets":[36,40]},)"
      R"("i32":{"dtype":"I32","shape":[1],"data_offsets":[40,44]},)"
      R"("b":{"dtype":"BF16","shape":[2,0,3],"data_offsets":[44,44]},)"
      R"("tab\tnew\nbell\u0007":{"dtype":"F16","shape":[1,1],"data_offsets":[44,46]},)"
      "\"é/ü\x7f\":"
      R"({"dtype":"F16","shape":[],"data_offsets":[46,48]},)"
      R"("u16":{"dtype":"U16","shape":[1],"data_offsets":[48,50]},)"
      R"("i16":{"dtype":"I16","shape":[1],"data_offsets":[50,52]},)"
      R"("e8":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[52,54]},)"
      R"("f8":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[54,58]},)"
      R"("f8b":{"dtype":"F8_E5M2","shape":[4],"data_offsets":[58,62]},)"
      R"("i8":{"dtype":"I8","shape":[1],"data_offsets":[62,63]},)"
      R"("z":{"dtype":"U8","shape":[2],"data_offsets":[63,65]},)"
      R"("f4":{"dtype":"F4","shape":[2,4],"data_offsets":[65,69]},)"
      R"("m":{"dtype":"BOOL","shape":[1],"data_offsets":[69,70]}})"
      "     ";
  CHECK(json_of(plan) == python);
  CHECK(plan.begin.at("n") == plan.header.size());
  CHECK(plan.begin.at("m") == plan.header.size() + 69);
  CHECK(plan.file_size == plan.header.size() + 70);
}

TEST_CASE("a header without tensors or metadata is a header") {
  CHECK(json_of(plan_safetensors({}, {})) == "{}      ");
  CHECK(json_of(plan_safetensors({}, {{"format", "pt"}})) == R"({"__metadata__":{"format":"pt"}})");
  CHECK(json_of(plan_safetensors({}, {{"b", "2"}, {"a", "1"}})) ==
        R"({"__metadata__":{"a":"1","b":"2"}}      )");
}

TEST_CASE("what no reader takes is refused before a byte is written") {
  CHECK_THROWS_AS(plan_safetensors({{"__metadata__", Tensor::zeros(DType::F32, {1})}}, {}), Error);
  CHECK_THROWS_AS(plan_safetensors({{"t", Tensor::zeros(DType::F4, {3})}}, {}), Error);
  plan_safetensors({{"t", Tensor::zeros(DType::F4, {4})}}, {});
}

TEST_CASE("every planned header is one the reader takes") {
  const SafetensorsPlan plan = plan_safetensors({{"a", Tensor::zeros(DType::F6_E2M3, {4})},
                                                 {"", Tensor::zeros(DType::F32, {2, 2})},
                                                 {"x\x01", Tensor::zeros(DType::BF16, {0})}},
                                                {{"format", "pt"}});
  const SafetensorsHeader header = parse_safetensors_header(json_of(plan), plan.file_size, "test");
  CHECK(header.tensors.size() == 3);
  for (const TensorEntry& entry : header.tensors)
    CHECK(plan.begin.at(std::string(entry.name)) == plan.header.size() + entry.begin);
}
