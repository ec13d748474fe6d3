// lora-convert inspect PATH

#include <CLI/CLI.hpp>
#include <memory>

#include "lib/moelora.h"
#include "tools/convert/commands.h"
#include "tools/load_options.h"
#include "tools/page_origin.h"
#include "tools/terminal.h"

namespace moelora {
namespace {

struct InspectFlags {
  CommonOptions common;
  LoadFlags load;
  std::string format = "text";
  bool verbose = false;
};

// What a picture needs; the text and JSON read no value.
InspectedValues values_of(const Inspection& found, const InspectFlags& flags) {
  if (!found.is_adapter || !found.problem.empty()) return {};
  LoadOptions options = flags.load.options();
  options.job = shown_job(flags.common.quiet);
  return inspect_values(flags.load.path, options, flags.common.threads);
}

int run(InspectFlags& flags) {
  open_output(flags.common, flags.load.inputs());
  const PageOrigin origin = page_origin(flags.format);
  LoadOptions options = flags.load.options();
  options.job = shown_job(flags.common.quiet);
  const Inspection found = inspect(flags.load.path, options);
  if (flags.format == "json") {
    print_data(flags.common, inspection_json(found));
  } else if (flags.format == "html") {
    print_data(flags.common, inspection_html(found, values_of(found, flags), origin));
  } else {
    std::string text = inspection_text(found);
    if (flags.verbose && wants_blocks(flags.common))
      text += "\n" + inspection_blocks(values_of(found, flags), terminal_width(flags.common));
    print_data(flags.common, text,
               wants_blocks(flags.common) ? DataKind::colored : DataKind::plain);
  }
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
  add_choice(*sub, "--format", flags->format, "Form of the description", {"text", "json", "html"});
  sub->add_flag("-v,--verbose", flags->verbose, "On a terminal with colors: heat maps too");
  add_common_options(*sub, flags->common);
  sub->footer(examples({"lora-convert inspect my-adapter",
                        "lora-convert inspect my-adapter --base openai/gpt-oss-20b --format html "
                        "--output page.html"}));
  return {sub, [flags] { return run(*flags); }};
}

}  // namespace moelora
