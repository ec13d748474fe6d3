#include "tests/adapter/goldens.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <regex>

#include "lib/base/cast.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"

namespace moelora::test {
namespace {

namespace fs = std::filesystem;

const std::string kData = MOELORA_TEST_DATA;

// `experts` axes as transformers 5 holds them.
std::map<std::string, Matrix> answers(const std::string& file, const ModelSpec& spec) {
  std::map<std::string, Matrix> out;
  const SafetensorsFile answer = open_safetensors(file);
  const std::regex expert("delta\\..*layers\\.(\\d+)\\..*experts\\.(gate_up_proj|down_proj)");
  for (const auto& entry : answer.tensors) {
    const std::string& name = entry.first;
    if (!name.starts_with("delta.") || entry.second.rank() == 1) continue;  // rank 1: a lora_bias
    const std::vector<double> data = read_double(entry.second);
    std::smatch m;
    if (!std::regex_match(name, m, expert)) {
      out[name.substr(6, name.size() - 6 - 7)] = {entry.second.dim(0), entry.second.dim(1), data};
      continue;
    }
    const bool in_out = spec.memory.axes == ExpertAxes::in_out;
    const int64_t n = entry.second.dim(1), k = entry.second.dim(2), o = in_out ? k : n,
                  i = in_out ? n : k;
    for (int64_t e = 0; e < entry.second.dim(0); ++e) {
      const auto at = [&](int64_t row, int64_t col) {
        return data[static_cast<size_t>(e * n * k + (in_out ? col * k + row : row * k + col))];
      };
      const bool down = m[2] == "down_proj";
      for (const char* proj : {"gate", "up", "down"}) {
        if (down != (std::string(proj) == "down")) continue;
        const bool interleaved = spec.gate_up_order == GateUpOrder::interleaved;
        const int64_t count = down ? o : o / 2, step = !down && interleaved ? 2 : 1;
        const int64_t first = std::string(proj) != "up" ? 0 : interleaved ? 1 : o / 2;
        Matrix w{count, i, {}};
        for (int64_t r = 0; r < count; ++r)
          for (int64_t c = 0; c < i; ++c) w.data.push_back(at(first + r * step, c));
        out["layer " + m[1].str() + " expert " + std::to_string(e) + " " + proj] = w;
      }
    }
  }
  return out;
}

bool is_zero(const Matrix& m) {
  for (double v : m.data)
    if (v != 0) return false;
  return true;
}

// Where a hub spelling was written, the in-memory one the answers use.
std::string memory_name(const ModelSpec& spec, const std::string& module) {
  const LinearSpec* linear = spec.find_linear(module);
  return linear != nullptr ? linear->memory : module;
}

std::map<std::string, Matrix> decoded_answer(const std::string& folder, const ModelSpec& spec) {
  std::map<std::string, Matrix> out;
  for (const auto& entry : decode_deltas(folder, decode_options(spec, "peft-linear", false)))
    out[memory_name(spec, entry.first)] = entry.second;
  return out;
}

}  // namespace

std::string Golden::folder() const { return kData + "/" + family + "/" + adapter; }
std::string Golden::base() const { return kData + "/" + family + "/base"; }

TempFolder::TempFolder() {
  std::string name = (fs::temp_directory_path() / "moelora_golden_XXXXXX").string();
  path = mkdtemp(name.data());
}

TempFolder::~TempFolder() { fs::remove_all(path); }

std::vector<Golden> goldens() {
  std::vector<Golden> out;
  const ReadOptions plain, grouped{BOrder::expert_major, {}}, natural{{}, Roles::natural};
  for (const char* family : {"gpt_oss", "gpt_oss_square", "qwen3_moe", "mixtral", "deepseek_v3",
                             "glm4_moe", "qwen2_moe"}) {
    for (const auto& entry : fs::directory_iterator(kData + "/" + family)) {
      const std::string name = entry.path().filename().string();
      const std::string stem = name.substr(0, name.find(".expect"));
      if (!name.ends_with(".expect.safetensors") || stem == "base") continue;
      if (stem == "dora_attention") continue;  // DoRA's delta needs the base weights
      const bool square_lone =
          std::string(family) == "gpt_oss_square" && stem == "peft_params_down_only";
      out.push_back({family, stem, stem, square_lone ? natural : plain, stem == "tinker"});
    }
    for (const char* form : {"peft_params_swapped_roles", "peft_params_grouped_b",
                             "peft_params_alphabetical", "peft_params_grouped_b_unmarked"})
      if (fs::exists(kData + "/" + family + "/" + form))
        out.push_back({family, form, "peft_params",
                       std::string(form).ends_with("unmarked") ? grouped : plain, false});
    for (const char* form : {"attention_only_sharded"})
      if (fs::exists(kData + "/" + family + "/" + form))
        out.push_back({family, form, "attention_only", plain, false});
    if (fs::exists(kData + "/" + family + "/tinker.build_lora_adapter"))
      out.push_back({family, "tinker.build_lora_adapter", "tinker", plain, true});
  }
  return out;
}

std::vector<Golden> later_goldens() {
  std::vector<Golden> out;
  for (const auto& family : fs::directory_iterator(kData + "/family_goldens"))
    for (const auto& entry : fs::directory_iterator(family.path())) {
      const std::string name = entry.path().filename().string();
      if (!name.ends_with(".expect.safetensors")) continue;
      const std::string stem = name.substr(0, name.find(".expect"));
      out.push_back({"family_goldens/" + family.path().filename().string(), stem, stem, {}, false});
    }
  std::sort(out.begin(), out.end(),
            [](const Golden& a, const Golden& b) { return a.folder() < b.folder(); });
  return out;
}

std::vector<DialectCase> dialect_cases() {
  std::vector<DialectCase> out;
  for (const auto& source : fs::directory_iterator(kData)) {
    if (!source.path().filename().string().starts_with("dialect_")) continue;
    for (const auto& entry : fs::directory_iterator(source.path())) {
      const std::string folder = entry.path().string();
      if (!fs::exists(folder + "/case.json")) continue;
      const Json json = read_json_file(InputPath(folder + "/case.json"));
      const auto path = [&](const char* key) {
        const std::string said = json.find(key)->as_string();
        return said.starts_with("./") ? folder + said.substr(1) : kData + "/" + said;
      };
      const Json* shared = json.find("shared_outer");
      out.push_back({json.find("dialect")->as_string(), path("adapter"), path("base"),
                     path("answer"), shared != nullptr && shared->as_bool()});
    }
  }
  std::sort(out.begin(), out.end(),
            [](const DialectCase& a, const DialectCase& b) { return a.adapter < b.adapter; });
  return out;
}

std::map<std::string, Matrix> answers_of(const std::string& file, const ModelSpec& spec) {
  return answers(file, spec);
}

DecodeOptions decode_options(const ModelSpec& spec, const std::string& layout, bool lone_down) {
  DecodeOptions d;
  d.experts = spec.experts;
  d.intermediate = spec.intermediate;
  d.layout = layout;
  d.interleaved = spec.gate_up_order == GateUpOrder::interleaved;
  d.lone = lone_down ? "down_proj" : "gate_up_proj";
  return d;
}

std::map<std::string, Matrix> golden_answer(const Golden& g, const ModelSpec& spec) {
  const std::string family = kData + "/" + g.family;
  auto expected = answers(family + "/" + g.answer + ".expect.safetensors", spec);
  if (!expected.empty()) return expected;
  // Answered by hand, without deltas: numbered pairs of plain names mean what they say.
  return decoded_answer(
      family + "/" + (g.answer == "tinker" ? "tinker.build_lora_adapter" : g.answer), spec);
}

void check_deltas(const std::string& folder, const ModelSpec& spec, const DecodeOptions& decode,
                  const std::map<std::string, Matrix>& expected) {
  std::map<std::string, Matrix> found;
  for (const auto& entry : decode_deltas(folder, decode))
    found[memory_name(spec, entry.first)] = entry.second;
  double worst = 0;
  size_t missing = 0;
  for (const auto& entry : expected) {
    const auto it = found.find(entry.first);
    if (it == found.end() && !is_zero(entry.second)) ++missing;
    if (it != found.end()) worst = std::max(worst, relative_error(it->second, entry.second));
  }
  for (const auto& entry : found)
    if (expected.count(entry.first) == 0 && !is_zero(entry.second)) ++missing;
  CHECK(worst <= 1e-6);
  CHECK(missing == 0);
}

}  // namespace moelora::test
