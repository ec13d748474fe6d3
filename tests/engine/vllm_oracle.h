#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/engine/engine.h"

// What vLLM's releases really did with hand-made adapters and with the goldens
// (tests/data/vllm_adapters.tar.xz, made by tests/data/pack_vllm.py).
namespace moelora::test {

struct VllmOutcome {
  std::string stage, type, text;                       // stage "served": no exception
  std::vector<std::string> unused, unpaired, skipped;  // tensors
  std::vector<std::string> set, zero;                  // modules
  bool served() const { return stage == "served"; }
};

struct VllmRun {
  std::string version;
  bool golden = false;  // else made by hand
  std::string family, adapter, mode;
  int64_t tp = 1, rank = 0, max_rank = 8;
  const VllmOutcome* outcome = nullptr;
  std::optional<uint32_t> buffers;  // CRC-32 of what the server held (pack_vllm.py, buffers_crc)

  std::string folder() const;     // of the adapter, unpacked
  std::string text() const;       // "0.22 gpt_oss/stacked mixed2d tp2 rank 1"
  ServerOptions options() const;  // "as3d" is a mode that no flag of the server names
};

// pin_memory() does nothing on the CPU that ran the releases since 0.27.1: what it raises on a GPU
// is not in their results. Two adapters.
bool of_the_cpu(const VllmRun& run);

// A message with "{SET}" for the set of accepted modules, whose order is arbitrary.
std::string without_sets(const std::string& text);

struct VllmClass {
  std::string name, error;  // error: it cannot start with LoRA
  bool stacked = false, non_gated = false;
  std::vector<std::string> accepted;
  std::vector<std::pair<std::string, std::string>> wrappers;  // module and wrapper class, in order
};

struct VllmOracle {
  std::vector<VllmOutcome> outcomes;
  std::vector<VllmRun> runs;
  std::map<std::string, std::map<std::string, VllmClass>> catalogue;  // by version and family
};
const VllmOracle& vllm_oracle();

// Of a family of the oracle: its tiny base model.
struct VllmBase {
  Json config;
  ModelSpec spec;
};
const VllmBase& vllm_base(const std::string& family);

// The headers of a folder as vLLM would find it; folder and name as the outcomes spell them.
ServedAdapter vllm_adapter(const std::string& folder);

// Its adapter_model.safetensors. The only pickles hold the same tensors as the folder beside them,
// which stands for them.
std::string vllm_weights_path(const std::string& folder);

}  // namespace moelora::test
