#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/adapter/layout.h"
#include "lib/model/model_spec.h"
#include "tests/adapter/decode.h"

namespace moelora::test {

// An adapter that a real peer saved (tests/data), and whose answer says what it means.
struct Golden {
  std::string family, adapter, answer;  // answer: the folder whose .expect it shares
  ReadOptions read;
  bool shared_outer;  // can be written as shared-outer

  std::string folder() const;
  std::string base() const;
};

// All that have an answer but for DoRA's, whose delta needs the base weights.
std::vector<Golden> goldens();

// Those of 21 more families, dense ones among them (tests/data/family_goldens.tar.xz).
std::vector<Golden> later_goldens();

// An adapter in another trainer's dialect: a folder of tests/data/dialect_* with case.json, which
// names base and answer by paths from the test data ("qwen3_moe/base"), or from itself ("./base").
struct DialectCase {
  std::string dialect, adapter, base, answer;  // an id, and paths
  bool shared_outer = false;                   // can be written as shared-outer
};
std::vector<DialectCase> dialect_cases();

// Deltas of an .expect.safetensors in fp64, by decode_deltas' names.
std::map<std::string, Matrix> answers_of(const std::string& file, const ModelSpec& spec);

// Its deltas in fp64, by decode_deltas' names; what was answered by hand is decoded.
std::map<std::string, Matrix> golden_answer(const Golden& golden, const ModelSpec& spec);

DecodeOptions decode_options(const ModelSpec& spec, const std::string& layout, bool lone_down);

// Decodes a written folder and CHECKs that every delta is the expected one within 1e-6 relative,
// that none is missing and that whatever else is there is zero.
void check_deltas(const std::string& folder, const ModelSpec& spec, const DecodeOptions& decode,
                  const std::map<std::string, Matrix>& expected);

// A folder of its own, removed with what it holds.
struct TempFolder {
  std::string path;
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
};

}  // namespace moelora::test
