// The HyperDreamBooth tab's behavior in the page: the same file in the WebUI and in our own window.
// No texts are made here: what is read stands in the page's HTML, where the WebUI's localization finds it.

(function () {
    "use strict";

    const KEY = "hdb_job";
    // A job was started in this page: there is nothing to reconnect to.
    let started = false;
    // The built-in model was asked for.
    let tried = false;
    // The job that is under way, to tell when it begins and ends.
    let working = "";
    // Where the cards are older than the last job.
    const outdated = new Set();
    // The refusal that was scrolled into the window last.
    let refused;

    function root() {
        return typeof gradioApp === "function" ? gradioApp() : document;
    }

    function find(selector) {
        return root().querySelector(selector);
    }

    // Gradio listens for the event, not for the value.
    function setValue(selector, value) {
        const input = find(`${selector} textarea, ${selector} input`);
        if (!input) return false;
        const prototype = input.tagName === "TEXTAREA" ? HTMLTextAreaElement.prototype : HTMLInputElement.prototype;
        Object.getOwnPropertyDescriptor(prototype, "value").set.call(input, value);
        input.dispatchEvent(new Event("input", {bubbles: true}));
        input.dispatchEvent(new Event("change", {bubbles: true}));
        return true;
    }

    function value(selector) {
        const input = find(`${selector} textarea, ${selector} input`);
        return input ? input.value : "";
    }

    function press(selector) {
        const element = find(selector);
        const button = element && (element.tagName === "BUTTON" ? element : element.querySelector("button"));
        if (button) button.click();
    }

    // After a page refresh the server is asked for the job that was running; an empty id shows the tab's first page.
    // Newer gradio shows a button before it listens to it: we ask until the answer is in the page, and ever less often,
    // for a busy server answers late. `wait` in milliseconds.
    function reconnect(wait) {
        if (wait > 20000 || started || answered()) return;
        setValue("#hdb_job", localStorage.getItem(KEY) || "");
        // Gradio takes the value over before the press is handled.
        setTimeout(() => started || press("#hdb_reconnect"), 50);
        setTimeout(() => reconnect(2 * wait), wait);
    }

    function answered() {
        const shown = find("#hdb_progress [data-job]");
        return !shown || shown.dataset.job !== "" || shown.dataset.answered === "yes";
    }

    // The last job is shown again after a refresh, also one that is done.
    function remember() {
        const shown = find("#hdb_progress [data-job]");
        if (!shown || !shown.dataset.job) return;
        const {job, stage} = shown.dataset;
        if (stage === "failed") localStorage.removeItem(KEY);
        else localStorage.setItem(KEY, job);
        if (stage === "done" && working === job) {
            for (const tab of ["txt2img", "img2img"]) outdated.add(tab);
            refreshCards();
        }
        if (stage === "finetune" && tried) showCheckpoint();
        // The button may be far below.
        if (stage !== "done" && working !== job && started) shown.scrollIntoView({block: "nearest"});
        working = stage === "done" ? "" : job;
    }

    // What was refused is said below the button, which may be the last thing in the window. Note and button come one
    // after the other, and newer gradio makes both anew.
    function showRefusal() {
        const said = [find("#hdb_replace"), find("#hdb_refusal .hdb_note")].find(element => element?.offsetParent);
        if (said && said !== refused) said.scrollIntoView({block: "nearest"});
        refused = said;
    }

    // The WebUI's list at the top left does not know what was loaded without it (modules/ui_settings.py).
    function showCheckpoint() {
        tried = false;
        press("#refresh_sd_model_checkpoint");
        setTimeout(() => press("#change_checkpoint"), 1500);
    }

    // The WebUI's cards are made anew by a button that it hides (modules/ui_extra_networks.py, create_ui). It lists all
    // kinds of files anew, checkpoints too, and a picture that is begun meanwhile finds none: so not before the cards
    // are looked at.
    function refreshCards() {
        for (const tab of outdated) {
            const button = find(`#${tab}_lidb_extra_refresh_internal`);
            if (!button || !find(`#${tab}_lidb_cards`)?.offsetParent) continue;
            outdated.delete(tab);
            button.dispatchEvent(new Event("click"));
        }
    }

    // `shown` says which size and guidance scale the checkpoint was made for.
    function sendToTxt2img(ours, shown) {
        const prompt = find("#txt2img_prompt textarea");
        if (!prompt || !ours) return;
        const tag = (ours.match(/<lidb:[^>]+>/) || [""])[0];
        const there = prompt.value.trim();
        if (!tag || !there.includes(tag)) setValue("#txt2img_prompt", there ? `${there}, ${ours}` : ours);
        if (shown && shown.dataset.size) {
            for (const side of ["width", "height"]) setValue(`#txt2img_${side}`, shown.dataset.size);
            setValue("#txt2img_cfg_scale", shown.dataset.cfg);
        }
        if (typeof switch_to_txt2img === "function") switch_to_txt2img();
    }

    function sendPerson() {
        const person = find("#hdb_people .hdb_person.hdb_chosen");
        if (person) sendToTxt2img(person.dataset.prompt, find("#hdb_people [data-size]"));
    }

    // A picture over the whole page, until the next click or Escape.
    function enlarge(picture) {
        const large = document.createElement("div");
        large.className = "hdb_large";
        large.tabIndex = -1;
        large.append(picture.cloneNode());
        large.addEventListener("click", () => large.remove());
        large.addEventListener("keydown", event => event.key === "Escape" && large.remove());
        document.body.append(large);
        large.focus();
    }

    function onClick(event) {
        const target = event.target;
        if (!(target instanceof Element)) return;
        // When the click has opened what it opens.
        setTimeout(refreshCards, 100);
        const face = target.closest(".hdb_face");
        const person = target.closest(".hdb_person");
        if (face) setValue("#hdb_face", face.dataset.face);
        else if (person) setValue("#hdb_person", person.dataset.person);
        else if (target.matches("#hdb_result img, #hdb_generated img")) enlarge(target);
        else if (target.closest("#hdb_send")) sendToTxt2img(value("#hdb_prompt"), find("#hdb_result [data-size]"));
        else if (target.closest("#hdb_person_send")) sendPerson();
        else if (target.closest("#hdb_person_again")) find("#hdb_photo").scrollIntoView({block: "nearest"});
        else if (target.closest("#hdb_personalize, #hdb_try, #hdb_replace")) {
            started = true;
            tried = target.closest("#hdb_try") !== null;
        }
    }

    // Gradio makes the input anew after each photo; what is dropped is judged by the server.
    function onlyPictures(event) {
        const place = event.target instanceof Element && event.target.closest("#hdb_photo");
        const input = place && place.querySelector("input[type=file]");
        if (input) input.accept = "image/*";
    }

    function start() {
        root().addEventListener("click", onClick);
        root().addEventListener("pointerdown", onlyPictures, true);
        const inside = {childList: true, subtree: true};
        new MutationObserver(remember).observe(find("#hdb_progress"), inside);
        new MutationObserver(showRefusal).observe(find("#hdb_tab"), {...inside, attributeFilter: ["class", "style"]});
        reconnect(1000);
    }

    // The WebUI calls back when its page is built; elsewhere we look until the tab is there. It never is where the
    // WebUI's settings hide it.
    function whenThere(tries) {
        if (find("#hdb_reconnect") && find("#hdb_progress")) start();
        else if (tries > 0) setTimeout(() => whenThere(tries - 1), 100);
    }

    if (typeof onUiLoaded === "function") onUiLoaded(() => whenThere(100));
    else whenThere(3000);
})();
