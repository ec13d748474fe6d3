#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/load.h"
#include "lib/engine/vllm/plan/plan.h"
#include "lib/model/base_model.h"
#include "lib/model/model_builder.h"
#include "tests/engine/vllm_oracle.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;
using vllm::View;

namespace {

namespace why = vllm::cause;

ServerPlan plan_of(const std::string& family, const std::string& adapter,
                   const std::string& version = "0.27", ServerOptions options = {}) {
  VllmRun run;
  run.family = family;
  run.adapter = adapter;
  const std::vector<ServedAdapter> adapters{vllm_adapter(run.folder())};
  const VllmBase& base = vllm_base(family);
  return find_engine("vllm")->plan(
      {adapters, base.spec, base.config, options, *EngineVersion::parse(version)});
}

const PlanEvent* event(const AdapterPlan& plan, const Cause& cause) {
  for (const PlanEvent& entry : plan.events)
    if (entry.cause == &cause) return &entry;
  return nullptr;
}

size_t count(const AdapterPlan& plan, Fate fate) {
  return static_cast<size_t>(std::count_if(plan.fates.begin(), plan.fates.end(),
                                           [&](const TensorFate& f) { return f.fate == fate; }));
}

std::string raised_text(const std::function<void()>& step) {
  const auto raised = vllm::raised_by(step);
  return raised ? raised->type + ": " + raised->text : "";
}

double gibibytes(const std::string& base, int64_t rank, bool experts_alone) {
  const BaseModel model = open_base(base);
  ServerOptions options;
  options.max_lora_rank = rank;
  const ServerPlan plan = find_engine("vllm")->plan(
      {{}, model.spec, model.config, options, *EngineVersion::parse("0.27")});
  uint64_t bytes = 0;
  for (const MemoryRow& row : plan.memory.rows)
    if (!experts_alone || row.buffer.find("experts.w") != std::string::npos) bytes += row.bytes;
  return static_cast<double>(bytes) / (1 << 30);
}

}  // namespace

TEST_CASE("every tensor of an adapter has a fate and, where it is used, a buffer") {
  const ServerPlan plan = plan_of("qwen3_moe", "pe_attn");
  const AdapterPlan& adapter = plan.adapters[0];
  CHECK(adapter.first_refusal() == nullptr);
  CHECK(adapter.events.empty());
  CHECK(adapter.fates.size() == 120);
  CHECK(count(adapter, Fate::used) == 120);
  CHECK(adapter.fates[0].buffer == "model.layers.0.self_attn.qkv_proj.lora_a_stacked.1");
}

TEST_CASE("fates say what is cut, partial, unused and misplaced") {
  ServerOptions two;
  two.tp = 2;
  CHECK(count(plan_of("qwen3_moe", "attn_small").adapters[0], Fate::partial) == 6);
  CHECK(count(plan_of("qwen3_moe", "attn_big_out", "0.27", two).adapters[0], Fate::cut) == 3);
  CHECK(count(plan_of("qwen3_moe", "pe_layer_out_of_range").adapters[0], Fate::unused) == 50);
  CHECK(count(plan_of("gpt_oss", "stacked_8_experts").adapters[0], Fate::misplaced) == 8);
  CHECK(count(plan_of("qwen3_moe", "pe_down_only").adapters[0], Fate::refused) == 32);
}

TEST_CASE("a refusal does not hide the other faults of the config") {
  const ServerPlan plan = plan_of("qwen3_moe", "pe_dora_and_more");
  CHECK(event(plan.adapters[0], why::modules_to_save) != nullptr);
  CHECK(event(plan.adapters[0], why::dora) != nullptr);
  CHECK(event(plan.adapters[0], why::bias) != nullptr);
  CHECK(plan.adapters[0].first_refusal()->refusal->stage == "validate");
}

TEST_CASE("under expert parallel every rank has its experts, and all of them are used") {
  ServerOptions options;
  options.tp = 2;
  options.values["enable-expert-parallel"] = "on";
  const AdapterPlan plan = plan_of("qwen3_moe", "per_expert", "0.22", options).adapters[0];
  CHECK(plan.events.empty());
  CHECK(count(plan, Fate::used) == plan.fates.size());
}

TEST_CASE("a fault that only one rank's experts have is one of the adapter") {
  ServerOptions options;
  options.tp = 2;
  options.values["enable-expert-parallel"] = "on";
  const AdapterPlan plan = plan_of("qwen3_moe", "pe_small_H", "0.27", options).adapters[0];
  CHECK(count(plan, Fate::partial) == 48);
  CHECK(event(plan, why::silent_partial_copy)->tensors.size() == 48);
}

TEST_CASE("Qwen3-MoE packs gate and up of dense layers only where its config lists such layers") {
  const auto accepts = [](const Json& layers, int64_t step) {
    Json config = vllm_base("qwen3_moe").config;
    config.set("mlp_only_layers", layers);
    config.set("decoder_sparse_step", step);
    const ModelSpec spec = make_model_spec(config, "base");
    const vllm::Server server =
        vllm::make_server({{}, spec, config, {}, *EngineVersion::parse("0.27")});
    std::string out;
    for (const char* name : {"gate_proj", "gate_up_proj", "down_proj"})
      if (server.accepted.contains(name)) out += std::string(name) + " ";
    return out;
  };
  CHECK(accepts(Json::array({Json(0)}), 1) == "gate_proj down_proj ");
  CHECK(accepts(Json::array(), 1) == "");
  CHECK(accepts(Json::array(), 2) == "gate_up_proj down_proj ");
}

TEST_CASE("rsLoRA on numbered experts is wrong until 0.30, on stacked ones never") {
  CHECK(event(plan_of("qwen3_moe", "pe_rslora", "0.29").adapters[0], why::rslora_experts) !=
        nullptr);
  CHECK(plan_of("qwen3_moe", "pe_rslora", "0.30").adapters[0].events.empty());
  CHECK(plan_of("gpt_oss", "peft_params_rslora", "0.22").adapters[0].events.empty());
}

TEST_CASE("the order of a stacked lora_B changed on 2025-12-31") {
  const auto causes = [](const std::string& adapter, const std::string& version) {
    const AdapterPlan plan = plan_of("gpt_oss", adapter, version).adapters[0];
    return fmt::format("{}{}", event(plan, why::b_order_old_engine) != nullptr ? "old" : "",
                       event(plan, why::b_order_declared_other) != nullptr ? "declared" : "");
  };
  CHECK(causes("peft_params", "2025-12-30") == "old");
  CHECK(causes("peft_params", "2025-12-31") == "");
  CHECK(causes("peft_params", "0.13") == "old");
  CHECK(causes("peft_params", "0.14") == "");
  CHECK(causes("peft_params_grouped_b", "2025-12-30") == "");
  CHECK(causes("peft_params_grouped_b", "2025-12-31") == "declared");
}

TEST_CASE("the config is looked at before the file, the file before the names") {
  ServedAdapter adapter;
  const VllmBase& base = vllm_base("qwen3_moe");
  const vllm::Server server =
      vllm::make_server({{}, base.spec, base.config, {}, *EngineVersion::parse("0.27")});
  const auto first = [&] {
    const AdapterPlan plan = vllm::plan_adapter(server, adapter);
    const Refusal& refusal = *plan.first_refusal()->refusal;
    return refusal.stage + ": " + refusal_text(refusal);
  };
  adapter.name = "a";
  adapter.folder = "/a";
  CHECK(first() ==
        "load: LoRAAdapterNotFoundError: Loading lora a failed: No adapter found for /a");
  adapter.has_config = true;
  adapter.config = Json::array();
  CHECK(first() == "config: TypeError: list indices must be integers or slices, not str");
  adapter.config = Json::object({{"r", 4}});
  CHECK(first() ==
        "config: ValueError: Missing required configuration fields: {'lora_alpha', "
        "'target_modules'}");
  adapter.config = Json::object({{"r", 4}, {"lora_alpha", Json()}, {"target_modules", Json()}});
  CHECK(first() == "config: TypeError: unsupported operand type(s) for /: 'NoneType' and 'int'");
  adapter.config.set("lora_alpha", 8);
  adapter.config.set("r", Json(0.0));
  CHECK(first() == "config: ValueError: LoRA rank `r` must be a positive integer, got 0.0.");
  adapter.config.set("r", 4);
  CHECK(first() == "file: ValueError: /a doesn't contain tensors");
  adapter.files.push_back({"adapter_model.bin", {{"x", DType::F32, {2, 2}}}});
  CHECK(first() == "names: ValueError: x is unsupported LoRA weight");
}

TEST_CASE("options that LoRA excludes keep a server of 0.33 from starting") {
  const auto refusal = [](const std::string& family, const std::string& version,
                          const std::string& option, const std::string& value, int64_t tp) {
    ServerOptions options;
    options.tp = tp;
    options.values[option] = value;
    const VllmBase& base = vllm_base(family);
    const ServerPlan plan = find_engine("vllm")->plan(
        {{}, base.spec, base.config, options, *EngineVersion::parse(version)});
    return plan.server.empty() ? "" : refusal_text(*plan.server.front().refusal);
  };
  const std::string no_lora = "ValueError: LoRA is not supported with moe_backend='";
  for (const char* mega : {"deep_gemm_mega_moe", "aiter_mega_moe", "flashinfer_moe_ep_cutedsl"}) {
    CHECK(refusal("qwen3_moe", "0.33", "moe-backend", mega, 1).starts_with(no_lora + mega));
    CHECK(refusal("qwen3_moe", "0.32", "moe-backend", mega, 1) == "");
  }
  CHECK(refusal("qwen3_moe", "0.33", "moe-backend", "DeepGEMM-mega", 1) == "");
  CHECK(refusal("qwen3_moe", "0.33", "moe-backend", "Deep-GEMM-Mega-MoE", 1).starts_with(no_lora));
  const std::string sharded = "enable-batch-sharded-sampling";
  CHECK(
      refusal("qwen3_5_moe_text", "0.33", sharded, "on", 2) ==
      "NotImplementedError: Skipping the logits TP gather is not supported with an lm_head LoRA.");
  CHECK(refusal("qwen3_5_moe_text", "0.33", sharded, "on", 1) == "");
  CHECK(refusal("qwen3_moe", "0.33", sharded, "on", 2) == "");  // has no local logits
  CHECK(refusal("gpt_oss", "0.33", sharded, "on", 2) == "");    // takes no LoRA on lm_head
}

TEST_CASE("a model that does not split over the ranks keeps vLLM from starting") {
  Json config = open_base("Qwen/Qwen3-30B-A3B").config;  // 32 heads, 4 of keys and values
  const auto refusal = [&](int64_t tp, const char* expert_parallel = "off") {
    const ModelSpec spec = make_model_spec(config, "base");
    ServerOptions options;
    options.tp = tp;
    options.values["enable-expert-parallel"] = expert_parallel;
    const ServerPlan plan =
        find_engine("vllm")->plan({{}, spec, config, options, *EngineVersion::parse("0.33")});
    return plan.server.empty() ? "" : refusal_text(*plan.server.front().refusal);
  };
  for (const int64_t tp : {1, 2, 4, 8, 16}) CHECK(refusal(tp) == "");
  CHECK(refusal(3) ==
        "ValueError: Total number of attention heads (32) must be divisible by tensor parallel "
        "size (3).");
  CHECK(refusal(64).find("(32) must be divisible by tensor parallel size (64)") !=
        std::string::npos);
  config.set("moe_intermediate_size", 100);
  CHECK(refusal(4) == "");
  CHECK(refusal(8) == "AssertionError");
  CHECK(refusal(8, "on") == "");  // each rank holds whole experts
  config.set("num_key_value_heads", 6);
  CHECK(refusal(4) == "AssertionError");
  CHECK(refusal(2) == "");
}

TEST_CASE("values of options that do not exist are refused, or said to be unknown") {
  const EngineChoice vllm = parse_engine("vllm"), sglang = parse_engine("sglang");
  const auto error_of = [](const EngineChoice& engine, const std::string& pair) {
    ServerOptions options;
    return error_text([&] { set_server_option(options, pair, {&engine, 1}); });
  };
  CHECK(error_of(vllm, "lora-dtype=int8").find("unknown lora-dtype 'int8'") != std::string::npos);
  CHECK(error_of(sglang, "lora-backend=tritn").find("did you mean 'triton'") != std::string::npos);
  CHECK(error_of(vllm, "quantization=").find("has no value") != std::string::npos);
  CHECK(error_of(vllm, "lora-dtype=bfloat16").empty());
  const auto notes = [](const EngineChoice& engine, const std::string& pair) {
    ServerOptions options;
    set_server_option(options, pair, {&engine, 1});
    const BaseModel base = open_base("Qwen/Qwen3-30B-A3B");
    return engine.engine->plan({{}, base.spec, base.config, options, engine.version}).notes;
  };
  CHECK(notes(vllm, "moe-backend=DeepGEMM-Mega-MoE").size() == 1);
  CHECK(notes(vllm, "moe-backend=deep-gemm-mega-moe").empty());
  CHECK(notes(sglang, "quantization=fp88").size() == 1);
  CHECK(notes(sglang, "quantization=fp8").empty());
}

TEST_CASE("one LoRA slot takes the memory that vLLM's buffers take") {
  CHECK(gibibytes("openai/gpt-oss-20b", 16, true) == doctest::Approx(0.33).epsilon(0.02));
  CHECK(gibibytes("openai/gpt-oss-120b", 64, true) == doctest::Approx(7.91).epsilon(0.01));
  CHECK(gibibytes("Qwen/Qwen3-30B-A3B", 16, true) == doctest::Approx(1.55).epsilon(0.01));
  CHECK(gibibytes("Qwen/Qwen3-235B-A22B", 64, true) == doctest::Approx(24.2).epsilon(0.01));
  CHECK(gibibytes("Qwen/Qwen3-30B-A3B", 16, false) > gibibytes("Qwen/Qwen3-30B-A3B", 16, true));
}

TEST_CASE("an MXFP4 base pads its partitions and LoRA is cut at the padded size") {
  // oracles/vllm.md, padded_partition: intermediate size 2880, tp 2.
  struct Expected {
    const char* backend;
    int64_t tp, rows, second;
  };
  for (const Expected& e : {Expected{"", 1, 2880, 0},
                            {"", 2, 1440, 1440},
                            {"triton", 1, 2880, 0},
                            {"triton", 2, 1472, 1472},
                            {"marlin", 1, 2944, 0},
                            {"marlin", 2, 1536, 1536}}) {
    Json config = vllm_base("gpt_oss").config;
    config.set("intermediate_size", 2880);
    const ModelSpec spec = make_model_spec(config, "base");
    ServerOptions options;
    options.tp = e.tp;
    options.values["moe-backend"] = e.backend;
    options.values["quantization"] = *e.backend == '\0' ? "none" : "mxfp4";
    const vllm::Server server =
        vllm::make_server({{}, spec, config, options, *EngineVersion::parse("0.22")});
    CHECK(server.intermediate() == e.rows);
    ServedAdapter adapter = vllm_adapter(std::string(MOELORA_TEST_DATA) + "/gpt_oss/peft_params");
    for (TensorHeader& tensor : adapter.files[0].tensors)
      if (tensor.name.find("experts") != std::string::npos)
        for (int64_t& extent : tensor.shape)
          extent = extent == 48 ? 2880 : extent == 96 ? 5760 : extent;
    const vllm::Adapter opened = vllm::open_adapter(server, adapter);
    const vllm::RankLoad load = vllm::load_on_rank(server, opened, e.tp - 1);
    REQUIRE(load.events.empty());
    for (const vllm::Placement& placement : load.placements)
      if (load.buffers[placement.buffer].name.ends_with("experts.w2_lora_a_stacked.0"))
        CHECK(placement.parts[0].offset == e.second);
    const AdapterPlan plan = vllm::plan_adapter(server, adapter);
    CHECK((event(plan, why::padded_partition) != nullptr) == (*e.backend != '\0' && e.tp > 1));
  }
}

TEST_CASE("slices clip and never refuse, copies refuse what is too large") {
  const View matrix = View::of(0, {4, 6});
  CHECK(matrix.slice(0, 2, 9).shape == Shape{2, 6});
  CHECK(matrix.slice(0, 7, 9).shape == Shape{0, 6});
  CHECK(matrix.slice(1, 1, 6, 2).shape == Shape{4, 3});
  CHECK(matrix.slice(1, 1, 6, 2).strides == std::vector<int64_t>{6, 2});
  CHECK(raised_text([&] { View::of(0, {4}).slice(1, 0, 1); }) ==
        "IndexError: too many indices for tensor of dimension 1");
  CHECK(raised_text([&] { vllm::check_copy({4, 6}, {4, 1}); }) == "");
  CHECK(raised_text([&] {
          vllm::check_copy({4, 6}, {4, 8});
        }) ==
        "RuntimeError: The size of tensor a (6) must match the size of tensor b (8) at "
        "non-singleton dimension 1");
  CHECK(raised_text([&] {
          vllm::check_copy({1, 6}, {4, 6});
        }) == "RuntimeError: output with shape [1, 6] doesn't match the broadcast shape [4, 6]");
}

TEST_CASE("reshape infers one extent, and says what does not fit as torch does") {
  const View matrix = View::of(0, {12, 5});
  CHECK(matrix.reshape({4, -1, 5}).shape == Shape{4, 3, 5});
  CHECK(View::of(0, {0, 5}).reshape({4, -1, 5}).shape == Shape{4, 0, 5});
  CHECK(raised_text([&] {
          matrix.reshape({7, -1, 5});
        }) == "RuntimeError: shape '[7, -1, 5]' is invalid for input of size 60");
  CHECK(raised_text([&] {
          View::of(0, {12, 0}).reshape({4, -1, 0});
        }) ==
        "RuntimeError: cannot reshape tensor of 0 elements into shape [4, -1, 0] because the "
        "unspecified dimension size -1 can be any value and is ambiguous");
  CHECK_NOTHROW(View::of(0, {0, -1}).slice(1, 0, 5));  // an extent of 2^64 - 1 in the file
}
