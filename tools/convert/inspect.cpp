// lora-convert inspect PATH

#include <CLI/CLI.hpp>
#include <memory>

#include "lib/moelora.h"
#include "tools/convert/commands.h"
#include "tools/load_options.h"

namespace moelora {
namespace {

struct InspectFlags {
  CommonOptions common;
  LoadFlags load;
  std::string format = "text";
};

int run(InspectFlags& flags) {
  open_output(flags.common, flags.load.inputs());
  LoadOptions options = flags.load.options();
  options.job = shown_job(flags.common.quiet);
  const Inspection found = inspect(flags.load.path, options);
  print_data(flags.common,
             flags.format == "json" ? inspection_json(found) : inspection_text(found));
  return kClean;
}

}  // namespace

Command add_inspect(CLI::App& app) {
  const auto flags = std::make_shared<InspectFlags>();
  CLI::App* sub = app.add_subcommand(
      "inspect", "Describe an adapter or model: layout, modules, ranks, scales, what is ambiguous");
  sub->add_option("PATH", flags->load.path, "Adapter folder, weights file, model folder")
      ->required();
  add_load_options(*sub, flags->load);
  add_zip_flag(*sub, flags->load);
  add_choice(*sub, "--format", flags->format, "Form of the description", {"text", "json"});
  add_common_options(*sub, flags->common);
  sub->footer(
      examples({"lora-convert inspect my-adapter",
                "lora-convert inspect my-adapter --base openai/gpt-oss-20b --format json"}));
  return {sub, [flags] { return run(*flags); }};
}

}  // namespace moelora
