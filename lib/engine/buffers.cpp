#include "lib/engine/buffers.h"

#include <fmt/core.h>

#include <filesystem>

#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/engine/fit/step.h"
#include "lib/io/conversion_report.h"
#include "lib/io/disk/look.h"
#include "lib/io/evaluate.h"
#include "lib/io/file.h"
#include "lib/io/safetensors_header.h"
#include "lib/io/weights.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStem = "buffers";

// `holder`: the engine that holds buffers of the form asked for.
EngineChoice choose_engine(const Engine& holder, const std::string& engine) {
  const EngineChoice choice = parse_engine(engine.empty() ? holder.id : engine);
  if (choice.engine == &holder) return choice;
  Hint hint{"say ", Option::engine, fmt::format(" {}", holder.id)};
  if (const BufferForm* other = choice.engine->buffers)
    hint = Hint{"say ", Option::to, fmt::format(" {}, or ", other->id)} + hint;
  throw Error(at_option(Option::engine, printable(engine)),
              fmt::format("{} is what {} holds", holder.buffers->id, holder.id), hint);
}

// The options of the server, and which of its ranks is meant.
struct Deployment {
  ServerOptions server;
  int64_t tp_rank = 0;
};

Deployment deployment_of(const BufferOptions& options, const EngineChoice& engine) {
  constexpr std::string_view kRank = "tp-rank=";
  Deployment out;
  std::string rank;
  for (const std::string& pair : options.server_pairs)
    if (pair.starts_with(kRank))
      rank = pair;
    else
      set_server_option(out.server, pair, {&engine, 1});
  if (rank.empty()) return out;
  const auto number = parse_index(std::string_view(rank).substr(kRank.size()));
  if (!number || *number < 0 || *number >= out.server.tp)
    throw Error(
        at_option(Option::server_option, printable(rank)),
        out.server.tp == 1 ? "the server has one rank, 0"
                           : fmt::format("the server has ranks 0 to {}", out.server.tp - 1),
        out.server.tp == 1 ? Hint{Option::server_option, " tp-size=N says how many"} : Hint());
  out.tp_rank = *number;
  return out;
}

BaseModel base_of(const BufferOptions& options, const Json& config,
                  std::vector<std::string>& notes) {
  const Json* name = config.find("base_model_name_or_path");
  const bool named = name != nullptr && name->is(Json::Kind::string);
  if (auto found = base_or_hint(options.base, named ? name->as_string() : "", options.model_specs,
                                options.follow_base, notes, options.links))
    return std::move(*found);
  throw Error(at_option(Option::to, options.to),
              "what a server holds depends on the base model, and none is known",
              {"name it with ", Option::base});
}

// The folder as a server finds it: every *.safetensors of it, stray ones too; where there is none,
// what torch.save wrote. A folder without adapter_config.json is one a server refuses, and not an
// Error here; files that cannot be read are.
AdapterFolder server_folder(const std::string& path, Links links) {
  const fs::path given(path);
  const bool file = given.has_parent_path() && is_regular_file(path);
  AdapterFolder out =
      read_adapter_folder(file ? given.parent_path().string() : path, true, {false, links});
  const bool safetensors = !ending_in(out.listing, {kSafetensorsEnding}).empty();
  for (const ReadProblem& problem : out.problems) {
    const bool index_only = problem.file.empty() && safetensors;
    if (problem.kind == ReadProblem::Kind::no_folder ||
        (problem.kind != ReadProblem::Kind::no_config && !index_only))
      throw Error(problem.error);
  }
  return out;
}

// What is filled: the adapter as the server finds it, its values, and every file that was read.
struct Input {
  ServedAdapter served;
  std::vector<TensorMap> values;
  std::vector<FilePtr> files;
};

Input read_input(const std::string& path, Links links) {
  AdapterFolder folder = server_folder(path, links);
  Input out{served_adapter(folder), {}, {}};
  if (folder.has_config)
    out.files.push_back(File::open({folder.folder, std::string(kConfigName), links}));
  for (FolderFile& file : folder.files) {
    out.values.push_back(std::move(file.tensors));
    out.files.push_back(file.file);
  }
  return out;
}

[[noreturn]] void refuse(const EngineChoice& engine, const Refusal& refusal) {
  throw Error(engine.label(),
              fmt::format("refuses the adapter{}: {}",
                          refusal.first_use ? " at the first request" : "", refusal_text(refusal)));
}

void add_losses(const std::vector<PlanEvent>& events, const BufferOptions& options,
                BufferConversion& out) {
  for (const PlanEvent& event : events) {
    const std::string cause(options.name_of != nullptr ? options.name_of(*event.cause)
                                                       : event.cause->words);
    out.losses.push_back(Json::object({{"cause", cause},
                                       {"effect", effect_name(event.effect)},
                                       {"detail", event.detail},
                                       {"tensors", Json::strings(event.tensors)}}));
    std::string note = fmt::format("{}: {}", cause, event.detail);
    if (!event.tensors.empty()) note += fmt::format(" ({})", fit::some_of(event.tensors));
    out.notes.push_back(std::move(note));
  }
}

std::string report(const BufferConversion& c, const WrittenWeights& written,
                   const OutputFolder& folder) {
  return report_text({{"from", Json()},
                      {"to", c.engine.engine->buffers->id},
                      {"for", c.engine.label()},
                      {"server_options", Json::strings(c.server_pairs)},
                      {"tp_rank", c.tp_rank},
                      {"losses", Json::array(c.losses)},
                      {"notes", Json::strings(c.notes)},
                      {"files", Json::strings(folder.names_with({kConversionName}))}},
                     c.buffers, written);
}

int64_t verify(const WrittenWeights& written, const std::string& staged, const std::string& out,
               int threads) {
  const Weights back = open_weights(staged, {kStem});
  const auto digests = digest_tensors(back.tensors, threads);
  for (const auto& [name, tensor] : written.tensors) {
    const auto found = digests.find(name);
    if (found == digests.end() || found->second != tensor.digest)
      throw Error(out, fmt::format("verification failed: {} is not what was written", name));
  }
  return static_cast<int64_t>(digests.size());
}

}  // namespace

void add_block(ServedBlock block, std::vector<ServedBlock>& out) {
  if (!block.a.pieces().empty() && !block.b.pieces().empty()) out.push_back(std::move(block));
}

const Engine* find_buffer_engine(std::string_view form) {
  for (const Engine* engine : all_engines())
    if (engine->buffers != nullptr && engine->buffers->id == form) return engine;
  return nullptr;
}

BufferConversion plan_buffers(const std::string& in, const BufferOptions& options) {
  BufferConversion out;
  out.engine = choose_engine(*find_buffer_engine(options.to), options.engine);
  out.server_pairs = options.server_pairs;
  const auto [server, tp_rank] = deployment_of(options, out.engine);
  out.tp_rank = tp_rank;
  Input input = read_input(in, options.links);
  out.inputs = std::move(input.files);
  const BaseModel base = base_of(options, input.served.config, out.notes);
  const Engine& engine = *out.engine.engine;
  const EngineVersion& version = out.engine.version;
  RankBuffers held =
      engine.fill({input.served, input.values, base.spec, base.config, server, version, tp_rank});
  if (held.refused) refuse(out.engine, *held.refused);
  out.buffers = std::move(held.buffers);
  const ServerPlan plan =
      engine.plan({{&input.served, 1}, base.spec, base.config, server, version});
  add_losses(plan.server, options, out);
  for (const AdapterPlan& adapter : plan.adapters) add_losses(adapter.events, options, out);
  if (!plan.memory.dtype.empty() && plan.memory.dtype != "bf16")
    out.notes.push_back(fmt::format("{} holds adapters of this base in {}: rounded to BF16 here",
                                    engine.title, plan.memory.dtype));
  out.notes.insert(out.notes.end(), plan.notes.begin(), plan.notes.end());
  return out;
}

WrittenConversion write_buffers(const BufferConversion& c, const std::string& out,
                                const WriteBuffersOptions& options) {
  OutputFolder folder(out, c.inputs, options.output);
  WrittenConversion written;
  written.weights = write_weights(folder, kStem, c.buffers, options.weights);
  if (options.verify)
    written.verified = verify(written.weights, folder.staged(), out, options.weights.threads);
  const auto ready = [&] {
    if (options.ready) options.ready(written);
  };
  written.left_behind =
      folder.commit(std::string(kConversionName), report(c, written.weights, folder), ready);
  return written;
}

}  // namespace moelora
