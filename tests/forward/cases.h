#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/adapter_file.h"
#include "lib/forward/score_tokens.h"
#include "lib/model/base_model.h"

namespace moelora::test {

using Tokens = std::vector<std::vector<int64_t>>;

// A tiny model of transformers with or without an adapter, and what it answered
// (tests/data/README.md, archive `forward`).
struct ForwardCase {
  std::string family, name;   // name: "base" or the adapter's
  std::string base, adapter;  // folders; "" for no adapter

  BaseModel open() const;
  std::optional<LoadedAdapter> load(const ReadOptions& read = {}) const;
  Tokens tokens() const;
  std::vector<double> answer() const;  // log-probabilities, sequence after sequence
  // With all that transformers keeps in fp32 made fp64; empty where there is none.
  std::vector<double> exact_answer() const;
};
std::vector<ForwardCase> forward_cases();
ForwardCase forward_case(const std::string& family, const std::string& name);

// The log-probabilities, sequence after sequence.
std::vector<double> scores_of(const BaseModel& base, const Adapter* adapter, const Tokens& tokens,
                              Precision precision = Precision::f64);
std::vector<double> scores_of(const ForwardCase& of, Precision precision = Precision::f64);

// The largest difference; infinite where the sizes differ or a number is not one.
double apart(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace moelora::test
