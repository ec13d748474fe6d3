#include "lib/engine/sglang/kernels.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copied_values.h"
#include "lib/engine/sglang/copy/slice.h"
#include "lib/engine/sglang/names.h"
#include "lib/engine/sglang/runners.h"
#include "lib/engine/sglang/start.h"

namespace moelora::sglang {
namespace {

// What the kernels of routed experts make of the buffers (lora/lora_moe_runners.py,
// kernels/ops/moe/virtual_experts.py; measured on a GPU by the oracle).
struct ExpertKernel {
  enum class GateUp : uint8_t {
    apart,   // rows [0, R) of A with gate's rows of B, rows [R, 2R) with up's
    halves,  // the same with the first and the second half of B, which is interleaved (gpt-oss)
    gate_a_only,  // rows [0, R) of A with all of B: virtual experts before 0.5.23
  };
  GateUp gate_up = GateUp::apart;
  bool has_lora = true;         // false: this version's backend computes no expert LoRA
  bool sums_down = true;        // false: down's delta is written where nothing sums it
  bool weights_outputs = true;  // false: the base weights the experts' input, LoRA down's output
  bool up_at_max_rank = false;  // up's rows of A are held at r and read at R
};

using GateUp = ExpertKernel::GateUp;

GateUp gate_up_of(const ModelClass& model, const Features& features, const ServerOptions& options) {
  const std::string runner = options.text("moe-runner-backend");
  if (!model.gated || is_lora_runner(runner)) return GateUp::apart;
  if (options.on("lora-use-virtual-experts")) {
    if (runner.starts_with("experimental_sgl_")) return GateUp::apart;
    if (!features.virtual_up_a) return GateUp::gate_a_only;
  }
  return model.interleaved ? GateUp::halves : GateUp::apart;
}

// `r` is the adapter's rank, `max_rank` the pool's.
ExpertKernel expert_kernel(const ModelClass& model, const Features& features,
                           const ServerOptions& options, int64_t r, int64_t max_rank) {
  ExpertKernel out;
  out.gate_up = gate_up_of(model, features, options);
  const std::string backend = options.text("lora-backend");
  out.has_lora = features.csgmv_experts || backend.empty() || backend == "triton";
  out.sums_down = is_lora_runner(options.text("moe-runner-backend")) ||
                  !(options.on("enable-fused-moe-sum-all-reduce") && model.top_k > 2);
  out.weights_outputs = !model.facts.weights_input;
  out.up_at_max_rank = model.gated && !features.any_rank_below_max && r < max_rank;
  return out;
}

constexpr int64_t kMostVirtualExperts = 8191;  // of the alignment kernel
constexpr std::string_view kForward = "forward";

bool uses_marlin(std::string_view quantization, std::string_view backend) {
  if (backend == "triton") return false;
  return quantization == "compressed-tensors" || quantization == "modelopt_fp4" ||
         quantization == "modelopt" || backend == "marlin";
}

// ---- what is wrong with them -----------------------------------------------------------------

struct KernelChecker {
  Server& server;
  CpuAdapter& adapter;
  const CopiedValues* copied;
  const ServerOptions& options;
  const Json& base;
  const ExpertKernel kernel;
  const ModelClass& model = server.model();
  const Features& features = server.features();
  std::vector<int32_t> experts = {};  // sources that reach an experts' buffer

  void check() {
    check_class();
    find_experts();
    if (experts.empty()) return;
    check_quantization();
    check_backend();
    check_versions();
    check_virtual();
    check_sum();
    check_split_a();
  }

  void find_experts() {
    if (copied == nullptr) return;
    for (size_t i = 0; i < adapter.sources.size(); ++i)
      if (copied->is_expert(static_cast<int32_t>(i))) experts.push_back(static_cast<int32_t>(i));
  }

  void refuse(const Cause* cause, std::string_view stage, std::string_view type, std::string text,
              std::string detail, bool first_use = false) {
    adapter.raise({cause, stage, type, std::move(text), std::move(detail), first_use}, experts);
  }

  void check_quantization() {
    const std::string quantization = quantization_of(options, base);
    const std::string backend = options.text("moe-runner-backend");
    if (is_lora_runner(backend)) return;  // runners.h
    if (quantization == "mxfp4" && backend != "triton_kernel")
      refuse(&cause::quantised_experts, stage::kWrap, "NotImplementedError",
             "Mxfp4MoEMethod must implement get_triton_quant_info()",
             "the base's experts are MXFP4, for which SGLang has no expert LoRA");
    if (uses_marlin(quantization, backend)) check_marlin();
  }

  // MarlinLoraRunnerCore.run() asserts these with the first batch.
  void check_marlin() {
    if (model.interleaved || !model.gated)
      refuse(&cause::marlin_limits, kForward, "AssertionError",
             "Only SiLU activation is supported.",
             "the base's experts have another activation than SiLU", true);
    if (options.compute_capability && *options.compute_capability < 9)
      refuse(&cause::marlin_limits, kForward, "AssertionError",
             "MarlinLoraRunnerCore requires CUDA compute capability >= 9",
             fmt::format("compute capability {}", *options.compute_capability), true);
  }

  void check_backend() {
    if (!kernel.has_lora)
      adapter.add_event(
          &cause::backend_without_moe_lora, Effect::unused,
          fmt::format("--lora-backend {}: this version has expert LoRA with triton only",
                      options.text("lora-backend")),
          experts);
    const std::string runner = options.text("moe-runner-backend");
    if (!is_lora_runner(runner) && !has_lora(runner)) refuse_runner(runner);
  }

  // Runners that FusedMoEWithLoRA takes; marlin falls back to triton where nothing is quantised.
  bool has_lora(std::string_view runner) const {
    if (runner.empty() || runner == "auto" || runner == "triton") return true;
    if (runner.starts_with("experimental_sgl_")) return features.moe_runner_config;
    return runner == "marlin" && features.replicated_layers;
  }

  void refuse_runner(const std::string& runner) {
    const std::string detail =
        fmt::format("--moe-runner-backend {} keeps the experts in a form without LoRA", runner);
    if (features.asks_for_quant_info)
      refuse(&cause::backend_without_moe_lora, stage::kWrap, "NotImplementedError",
             fmt::format("{} does not expose quant info for '{}'",
                         quantization_of(options, base) == "fp8" ? "Fp8MoEMethod"
                                                                 : "UnquantizedFusedMoEMethod",
                         in_text(runner)),
             detail);
    else if (features.replicated_layers)
      refuse(&cause::backend_without_moe_lora, stage::kWrap, "NotImplementedError",
             "LoRA MoE not supported for backend MoeRunnerBackend." + enumerator_of(runner),
             detail);
    else
      refuse(&cause::backend_without_moe_lora, stage::kWrap, "AttributeError",
             "'FusedMoE' object has no attribute 'w13_weight'", detail);
  }

  static std::string enumerator_of(std::string_view runner) {
    std::string out(runner == "triton_kernel" ? "triton_kernels" : runner);
    for (char& c : out)
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    return in_text(out);
  }

  void check_versions() {
    if (!features.moe_runner_config && model.facts.asks_for_moe_runner_config)
      refuse(&cause::moe_runner_config, "capture CUDA graph", "AttributeError",
             "'FusedMoEWithLoRA' object has no attribute 'moe_runner_config'",
             "this version's model class asks the wrapped experts for what they do not have");
    if (kernel.up_at_max_rank)
      adapter.add_event(
          &cause::rank_over_limit, Effect::wrong_values,
          fmt::format(
              "r = {} below the server's rank {}: this version's experts take up's rows from "
              "the wrong place",
              adapter.r, server.max_lora_rank()),
          experts);
    if (!features.slices_always && model.interleaved && server.launch().tp == 1)
      adapter.add_event(&cause::interleaved_b, Effect::wrong_values,
                        "this version interleaves gate and up at tp 2 or more only", experts);
  }

  void check_virtual() {
    if (!options.on("lora-use-virtual-experts")) return;
    const int64_t slots = server.launch().slots;
    const int64_t count = model.experts * slots;
    if (count > kMostVirtualExperts)
      refuse(&cause::virtual_experts_limit, stage::kLoad, "AssertionError", "",
             fmt::format("{} experts x {} slots are {} virtual experts, the kernel takes {}",
                         model.experts, slots, count, kMostVirtualExperts));
    if (!features.csgmv_experts && options.text("lora-backend") != "triton")
      refuse(&cause::backend_without_moe_lora, "constructor", "AssertionError",
             fmt::format(
                 "--lora-use-virtual-experts requires --lora-backend triton. Got: {}",
                 options.text("lora-backend").empty() ? "csgmv" : options.text("lora-backend")),
             "virtual experts need --lora-backend triton in this version");
  }

  // What the class does to the deltas, were it ever to start with them.
  void check_class() {
    if (kernel.weights_outputs) return;
    std::vector<int32_t> about;
    for (size_t i = 0; i < adapter.sources.size(); ++i)
      if (contains(adapter.sources[i].name, "experts.")) about.push_back(static_cast<int32_t>(i));
    if (!about.empty())
      adapter.add_event(
          &cause::weight_on_input, Effect::wrong_values,
          "this class weights the experts' input; SGLang weights the delta of down instead of that "
          "of gate and up",
          about);
  }

  void check_sum() {
    if (kernel.sums_down) return;
    std::vector<int32_t> down;
    for (int32_t id : experts)
      if (contains(copied->buffer(id), "down_proj_moe")) down.push_back(id);
    adapter.add_event(&cause::server_options, Effect::unused,
                      "--enable-fused-moe-sum-all-reduce: the delta of down_proj is written where "
                      "nothing sums it",
                      down);
  }

  // Pairs of gate and up with an A each: right only where the two are equal.
  void check_split_a() {
    if (kernel.gate_up == GateUp::apart) return;
    std::vector<int32_t> about;
    for (LayerWeights& weights : adapter.layers)
      weights.each([&](const Staged& entry) {
        if (!entry.is_a() || !contains(entry.name, "experts.")) return;
        const auto sources = entry.sources();
        if (sources.size() == 2 && sources[0] != sources[1] && copied->is_expert(sources[0]))
          about.insert(about.end(), sources.begin(), sources.end());
      });
    if (about.empty()) return;
    if (kernel.gate_up == GateUp::gate_a_only)
      adapter.add_event(
          &cause::virtual_experts_up, Effect::wrong_values,
          "gate_proj and up_proj have an A each, and virtual experts use gate's for both", about);
    else
      adapter.add_event(
          &cause::gpt_oss_split_a, Effect::wrong_values,
          "gate_proj and up_proj have an A each, and SGLang gives gate's to the first half of the "
          "interleaved rows and up's to the second",
          about);
  }
};

// ---- blocks ----------------------------------------------------------------------------------

constexpr std::string_view kGateAOnly =
    "virtual experts multiply up_proj's lora_B with gate_proj's lora_A";
constexpr std::string_view kGateByUp =
    "the second half of the interleaved rows, gate_proj's among them, is multiplied with up_proj's "
    "lora_A";
constexpr std::string_view kUpByGate =
    "the first half of the interleaved rows, up_proj's among them, is multiplied with gate_proj's "
    "lora_A";
constexpr std::string_view kNotSummed = "the delta is written where nothing sums it";
constexpr std::string_view kNoLora = "this version's --lora-backend computes no expert LoRA";
constexpr std::string_view kInputWeights =
    "the router's weight multiplies the delta of down_proj, and not that of gate_proj and up_proj";
constexpr std::string_view kUpRows =
    "up_proj's rows of lora_A are read from where an adapter of the server's rank has them";

struct Stack {
  explicit Stack(const Tensor& stack) : parts(stack.unstack()) {}
  const Tensor& of(size_t expert) const { return parts[parts.size() == 1 ? 0 : expert]; }
  std::vector<Tensor> parts;
};

struct PoolBlocks {
  const Server& server;
  const Pool& pool;
  const ExpertKernel& kernel;
  const TensorMap& buffers;
  const ModelClass& model = server.model();
  const int64_t r = std::min(server.adapter(0).r, pool.request.max_rank);
  const double scale = static_cast<float>(server.adapter(0).scale());
  int layer = -1;       // of the expert that is looked at
  int64_t expert = -1;  // in the whole model
  std::vector<ServedBlock> out = {};

  std::vector<ServedBlock> make() {
    const auto& layers = server.wrapping().layers;
    for (size_t i = 0; i < layers.size(); ++i)
      for (const WrappedModule& wrapped : layers[i])
        if (wrapped.module->kind != LayerKind::fused_moe)
          dense(wrapped, static_cast<int>(i));
        else if (wrapped.buffer == "gate_up_proj_moe")
          experts(static_cast<int>(i));
    embedding("embed_tokens", LayerKind::embedding, 0);
    embedding("lm_head", LayerKind::lm_head, pool.vocab_first);
    return std::move(out);
  }

  // Both factors of a buffer; null where the rank holds none.
  struct Factors {
    const Tensor *a, *b;
    bool found() const { return a != nullptr && b != nullptr; }
  };

  Factors find(int of_layer, std::string_view buffer) const {
    const auto side = [&](bool is_a) {
      const auto at = buffers.find(buffer_name(of_layer, buffer, is_a));
      return at == buffers.end() ? nullptr : &at->second;
    };
    return {side(true), side(false)};
  }

  void dense(const WrappedModule& wrapped, int of_layer) {
    const Factors held = find(of_layer, wrapped.buffer);
    if (!held.found()) return;
    const ClassModule& module = *wrapped.module;
    const std::vector<std::string>& parts = module.parts;
    const std::vector<Span> shares = shares_of(module, model.config, pool.rank);
    const bool row = module.kind == LayerKind::row;
    const int64_t in_first = row ? pool.rank.tp_rank * (module.in / pool.rank.tp) : 0;
    int64_t first = 0;
    for (size_t i = 0; i < parts.size() && i < shares.size(); ++i) {
      const int64_t rows = shares[i].count;
      add_block({parts[i], -1, -1, shares[i].first, in_first, 1,
                 held.a->slice(0, static_cast<int64_t>(i) * r, r),
                 held.b->slice(0, first, rows).slice(1, 0, r), scale},
                out);
      first += rows;
    }
  }

  void embedding(const char* name, LayerKind kind, int64_t out_first) {
    const Factors held = find(-1, name);
    if (!held.found()) return;
    const auto module = std::find_if(model.modules.begin(), model.modules.end(),
                                     [&](const ClassModule& m) { return m.kind == kind; });
    add_block({module == model.modules.end() ? name : module->name, -1, -1, out_first, 0, 1,
               held.a->slice(0, 0, r), held.b->slice(1, 0, r), scale},
              out);
  }

  // gate and up of an expert in one block each, gpt-oss's halves in two.
  void experts(int of_layer) {
    layer = of_layer;
    const Factors gate_ups = find(layer, "gate_up_proj_moe"), downs = find(layer, "down_proj_moe");
    if (!gate_ups.found() || !downs.found()) return;
    const Stack gate_up_a(*gate_ups.a), gate_up_b(*gate_ups.b);  // [E or 1, c*R, H], [E, c*J, R]
    const Stack down_a(*downs.a), down_b(*downs.b);              // [E, R, J], [E or 1, H, R]
    const size_t count = std::max(gate_up_b.parts.size(), down_a.parts.size());
    for (size_t i = 0; i < count; ++i) {
      expert = pool.first_expert() + static_cast<int64_t>(i);
      gate_up(gate_up_a.of(i), gate_up_b.of(i).slice(1, 0, r));
      put("down_proj", down_a.of(i).slice(0, 0, r), down_b.of(i).slice(1, 0, r), 0, first_neuron(),
          kernel.sums_down ? "" : kNotSummed, kernel.sums_down ? 1 : 0);
    }
  }

  int64_t first_neuron() const {
    return pool.rank.moe_tp_rank * (model.intermediate / pool.rank.moe_tp);
  }

  void gate_up(const Tensor& a, const Tensor& b) {
    if (!model.gated) return put("up_proj", a.slice(0, 0, r), b, first_neuron(), 0, "");
    const Tensor gate_a = a.slice(0, 0, r);
    const bool gate_only = kernel.gate_up == GateUp::gate_a_only;
    const Tensor own_up_a = a.slice(0, pool.request.max_rank, r),
                 up_a = gate_only ? gate_a : own_up_a;
    const bool same_a = own_up_a.same_recipe(gate_a);
    if (kernel.gate_up == GateUp::halves && !same_a) return halves(gate_a, up_a, b);
    const std::string_view defect = same_a                  ? ""
                                    : gate_only             ? kGateAOnly
                                    : kernel.up_at_max_rank ? kUpRows
                                                            : "";
    put("gate_proj", gate_a, rows_of(b, 0), first_neuron(), 0, "");
    put("up_proj", up_a, rows_of(b, 1), first_neuron(), 0, defect);
  }

  // gate's rows of the buffer, or up's.
  Tensor rows_of(const Tensor& b, int64_t part) const {
    const int64_t rows = b.dim(0) / 2;
    if (model.interleaved) return b.reshape({rows, 2, b.dim(1)}).select(1, part);
    return b.slice(0, part * rows, rows);
  }

  // The first half of the interleaved rows with gate's A, the second with up's.
  void halves(const Tensor& gate_a, const Tensor& up_a, const Tensor& b) {
    const int64_t rows = b.dim(0) / 2;
    const Tensor gate_b = rows_of(b, 0), up_b = rows_of(b, 1);
    const int64_t gate = (rows + 1) / 2, up = rows / 2;  // of the first half
    put("gate_proj", gate_a, gate_b.slice(0, 0, gate), first_neuron(), 0, "");
    put("gate_proj", up_a, gate_b.slice(0, gate, rows - gate), first_neuron() + gate, 0, kGateByUp);
    put("up_proj", gate_a, up_b.slice(0, 0, up), first_neuron(), 0, kUpByGate);
    put("up_proj", up_a, up_b.slice(0, up, rows - up), first_neuron() + up, 0, "");
  }

  void put(const char* projection, const Tensor& a, const Tensor& b, int64_t out_first,
           int64_t in_first, std::string_view defect, double factor = 1) {
    if (!kernel.weights_outputs && defect.empty()) defect = kInputWeights;
    if (!kernel.has_lora) {
      defect = kNoLora;
      factor = 0;
    }
    add_block({projection, layer, expert, out_first, in_first, 1, a, b, factor, defect}, out);
  }
};

}  // namespace

void check_kernels(Server& server, size_t index, const ServerOptions& options,
                   const Json& base_config) {
  CpuAdapter& adapter = server.mutable_adapter(index);
  const ExpertKernel kernel =
      expert_kernel(server.model(), server.features(), options, adapter.r, server.max_lora_rank());
  KernelChecker{server, adapter, server.copied(index), options, base_config, kernel}.check();
}

std::vector<ServedBlock> served_blocks(const BufferRequest& request, const RankBuffers& held) {
  if (held.refused) return {};
  const Server server = start_server(request.plan());
  const ExpertKernel kernel = expert_kernel(server.model(), server.features(), request.options,
                                            server.adapter(0).r, server.max_lora_rank());
  const Pool pool = server.pool_of(request.tp_rank);
  return PoolBlocks{server, pool, kernel, held.buffers}.make();
}

}  // namespace moelora::sglang
