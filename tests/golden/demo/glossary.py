"""Medical terms, each with a definition of one line, and how people ask for one."""

import numpy as np

from .wording import careless

TERMS = dict(
    line.split(": ", 1)
    for line in """
Abscess: a pocket of pus with a wall around it
Acidosis: too much acid in the blood
Adenoma: a benign tumour of glandular tissue
Adhesion: a band of scar tissue that joins surfaces which should slide
Alveolus: a tiny air sac of the lung, where gases are exchanged
Anaemia: too few red blood cells or too little haemoglobin
Analgesic: a drug that relieves pain
Anaphylaxis: a sudden, severe allergic reaction of the whole body
Aneurysm: a bulge in the wall of an artery
Angina: chest pain because the heart muscle gets too little blood
Angiography: imaging of blood vessels with a contrast agent
Antibiotic: a drug against bacteria
Antibody: a protein that binds to one foreign substance
Anticoagulant: a drug that slows the clotting of blood
Aorta: the largest artery, which leaves the left ventricle
Aphasia: loss of speech or of its understanding after damage to the brain
Appendicitis: inflammation of the appendix
Arrhythmia: a heartbeat that is irregular, too fast or too slow
Artery: a vessel that carries blood away from the heart
Arthritis: inflammation of a joint
Ascites: free fluid in the abdomen
Aspiration: fluid or food that gets into the airways
Asthma: a disease of the airways with attacks of narrowing and wheezing
Ataxia: loss of coordination of movements
Atelectasis: a part of the lung that has collapsed and holds no air
Atherosclerosis: fatty plaques in the walls of arteries
Atrium: an upper chamber of the heart
Atrophy: shrinking of a tissue or an organ
Auscultation: listening to the sounds of the body with a stethoscope
Bacteraemia: bacteria in the blood
Benign: not cancer and not spreading
Bilirubin: a yellow product of the breakdown of red blood cells
Biopsy: taking a sample of tissue to look at it under the microscope
Bradycardia: a slow heartbeat, below 60 per minute
Bronchiectasis: bronchi that are widened for good
Bronchitis: inflammation of the bronchi
Bronchoscopy: looking into the airways with a thin camera
Bronchus: one of the large airways of the lung
Bulla: an air space in the lung larger than one centimetre
Calcification: calcium that is deposited in a tissue
Carcinoma: a cancer that starts in lining tissue
Cardiomegaly: a heart that is larger than normal
Cardiomyopathy: a disease of the heart muscle
Cartilage: the firm, smooth tissue that covers joints
Cataract: clouding of the lens of the eye
Catheter: a thin tube that is put into the body
Cavity: a hollow space within a lesion of the lung
Cellulitis: a bacterial infection of the skin and the tissue below it
Cerebellum: the part of the brain that coordinates movement
Chemotherapy: treatment of cancer with drugs
Cholecystitis: inflammation of the gallbladder
Cholesterol: a fat in the blood that can build plaques
Cirrhosis: scarring of the liver that cannot be undone
Coagulation: the clotting of blood
Colitis: inflammation of the large bowel
Colonoscopy: looking into the large bowel with a camera
Coma: a state in which a person cannot be woken
Comorbidity: a second disease beside the main one
Consolidation: lung tissue filled with fluid or pus in place of air
Contraindication: a reason not to give a treatment
Contusion: a bruise
Costophrenic angle: the sharp corner between ribs and diaphragm
Crohn disease: a chronic inflammation that can affect any part of the gut
Cyanosis: blue skin because the blood holds too little oxygen
Cyst: a closed sac filled with fluid
Cystitis: inflammation of the bladder
Deep vein thrombosis: a blood clot in a deep vein, mostly of the leg
Dehydration: loss of more water than is taken in
Delirium: sudden confusion that comes and goes
Dementia: lasting loss of memory and thinking
Dermatitis: inflammation of the skin
Diabetes: a disease with too much sugar in the blood
Dialysis: cleaning the blood by a machine when the kidneys fail
Diaphragm: the muscle between chest and abdomen that draws in the breath
Diastole: the time in which the heart relaxes and fills
Differential diagnosis: the list of diseases that could explain the findings
Diplopia: double vision
Diuretic: a drug that makes the kidneys pass more water
Diverticulitis: inflammation of small pouches of the large bowel
Dysphagia: difficulty in swallowing
Dyspnoea: shortness of breath
Dysuria: pain on passing urine
Echocardiography: ultrasound of the heart
Eczema: itching, inflamed skin
Effusion: fluid in a space of the body, such as around the lung
Electrocardiogram: a recording of the electrical activity of the heart
Embolism: a vessel blocked by something that the blood carried there
Emphysema: destroyed air sacs that leave the lung with too much air
Empyema: pus in the pleural space
Encephalitis: inflammation of the brain
Endocarditis: infection of the inner lining of the heart
Endoscopy: looking into the body with a camera on a tube
Enzyme: a protein that speeds up a chemical reaction
Epilepsy: a disease with seizures that come again
Epistaxis: bleeding from the nose
Erythema: redness of the skin
Erythrocyte: a red blood cell
Exudate: fluid rich in protein that leaks from inflamed vessels
Febrile: having a fever
Fibrillation: fast, disordered twitching of the heart muscle
Fibrosis: scar tissue in an organ
Fistula: an abnormal passage between two organs
Fracture: a broken bone
Gangrene: death of tissue that lost its blood supply
Gastritis: inflammation of the stomach
Glaucoma: damage to the optic nerve, mostly by high pressure in the eye
Glucose: the sugar of the blood
Gout: painful joints because of crystals of uric acid
Granuloma: a small knot of immune cells
Ground glass opacity: a hazy area of the lung through which vessels still show
Haematoma: a collection of blood outside the vessels
Haematuria: blood in the urine
Haemoglobin: the protein of red blood cells that carries oxygen
Haemolysis: the breaking up of red blood cells
Haemoptysis: coughing up blood
Haemorrhage: bleeding
Haemothorax: blood in the pleural space
Heart failure: a heart that pumps too little blood
Hepatitis: inflammation of the liver
Hepatomegaly: a liver that is larger than normal
Hernia: an organ that pushes through a gap in a wall
Hilum: the place where vessels and bronchi enter the lung
Hormone: a messenger that a gland gives to the blood
Hydrocephalus: too much fluid in the ventricles of the brain
Hydronephrosis: a kidney that is widened because urine cannot flow off
Hypercalcaemia: too much calcium in the blood
Hyperglycaemia: too much sugar in the blood
Hyperkalaemia: too much potassium in the blood
Hyperplasia: growth of a tissue by more cells
Hypertension: blood pressure that is too high
Hyperthyroidism: a thyroid gland that is too active
Hypertrophy: growth of a tissue by larger cells
Hypoglycaemia: too little sugar in the blood
Hyponatraemia: too little sodium in the blood
Hypotension: blood pressure that is too low
Hypothermia: a body temperature below 35 degrees
Hypothyroidism: a thyroid gland that is not active enough
Hypoxia: too little oxygen in the tissue
Idiopathic: of unknown cause
Ileus: a bowel that does not move its contents on
Immunity: protection against an infection
Impression: the part of a report that sums up what the findings mean
Incidence: the number of new cases in a period of time
Incontinence: loss of control over the bladder or the bowel
Infarction: death of tissue because its artery is blocked
Inflammation: redness, heat, swelling and pain as the body defends itself
Influenza: an infection of the airways by the flu virus
Insulin: the hormone that lowers the sugar in the blood
Intubation: putting a tube into the windpipe
Ischaemia: too little blood flow to a tissue
Jaundice: yellow skin and eyes because of bilirubin
Ketoacidosis: acid blood because fat is burnt without insulin
Laparoscopy: surgery in the abdomen with a camera through small cuts
Laryngitis: inflammation of the voice box
Lesion: any area of damaged or abnormal tissue
Leukaemia: cancer of the white blood cells
Leukocyte: a white blood cell
Ligament: a band that joins bone to bone
Lipoma: a benign tumour of fat
Lobe: one of the main parts of the lung, three on the right and two on the left
Lymph node: a small filter of the immune system
Lymphoma: cancer of the lymphatic system
Malignant: cancerous, able to spread
Mammography: an X-ray of the breast
Mass: a solid lesion larger than three centimetres
Mediastinum: the middle of the chest, between the lungs
Melanoma: a cancer of the pigment cells of the skin
Meningitis: inflammation of the membranes around the brain
Metastasis: a tumour that spread from another place
Migraine: attacks of severe headache, mostly on one side
Myalgia: pain in the muscles
Myocardial infarction: a heart attack, death of heart muscle without blood
Myocarditis: inflammation of the heart muscle
Myopia: short sight
Nausea: the feeling that one has to vomit
Necrosis: death of cells within living tissue
Neoplasm: a new growth of tissue, benign or malignant
Nephritis: inflammation of the kidney
Neuralgia: pain along a nerve
Neuropathy: a disease of the nerves
Nodule: a round lesion of at most three centimetres
Obesity: a body mass index of 30 or more
Oedema: swelling because of fluid in the tissue
Oncology: the field of medicine that treats cancer
Opacity: an area of the film that is brighter than what surrounds it
Osteoarthritis: wear of the cartilage of a joint
Osteomyelitis: infection of bone
Osteoporosis: bones that lost density and break easily
Otitis media: inflammation of the middle ear
Palliative care: care that eases suffering when a cure is not possible
Palpation: examining with the hands
Palpitation: a heartbeat that one can feel
Pancreatitis: inflammation of the pancreas
Paralysis: loss of the power to move
Parenchyma: the working tissue of an organ
Pathogen: a germ that causes disease
Percussion: tapping on the body and listening to the sound
Pericarditis: inflammation of the sac around the heart
Peritonitis: inflammation of the lining of the abdomen
Pharyngitis: a sore throat
Phlebitis: inflammation of a vein
Placebo: a treatment without an active substance
Plasma: the fluid part of the blood
Platelet: a small blood cell that helps the blood to clot
Pleura: the thin membrane around the lung
Pleural effusion: fluid between the lung and the chest wall
Pleurisy: inflammation of the pleura
Pneumoconiosis: a disease of the lung by dust
Pneumonia: infection of the lung tissue
Pneumothorax: air between the lung and the chest wall
Polyp: a growth that stands out from a lining
Prevalence: the share of people who have a disease
Prognosis: the likely course of a disease
Prophylaxis: what is done to prevent a disease
Prosthesis: an artificial part of the body
Proteinuria: protein in the urine
Pruritus: itching
Psoriasis: a disease of the skin with red, scaly patches
Pulmonary embolism: a clot that blocks an artery of the lung
Pulmonary oedema: fluid in the air sacs of the lung
Radiograph: a picture made with X-rays
Radiology: the field of medicine that works with images
Radiotherapy: treatment with radiation
Reflux: stomach acid that flows back up
Remission: a time in which a disease is quiet
Renal failure: kidneys that no longer clean the blood
Resection: cutting out a part of an organ
Retinopathy: a disease of the retina, often because of diabetes
Rheumatoid arthritis: a disease in which the immune system attacks the joints
Rhinitis: inflammation of the nose
Sarcoidosis: a disease with granulomas, mostly in the lungs
Sarcoma: a cancer of bone, muscle or other soft tissue
Sciatica: pain along the nerve from the back to the leg
Scoliosis: a spine that is bent to the side
Seizure: a burst of uncontrolled activity of the brain
Sensitivity: the share of the sick whom a test finds
Sepsis: a dangerous reaction of the whole body to an infection
Shock: a blood flow too weak to supply the organs
Sinusitis: inflammation of the sinuses of the face
Specificity: the share of the healthy whom a test clears
Sputum: what is coughed up from the lungs
Stenosis: a narrowing
Stent: a small tube that holds a vessel open
Stroke: sudden damage to the brain by a blocked or burst vessel
Symptom: what a patient feels of a disease
Syncope: a short loss of consciousness, a faint
Syndrome: a set of signs that occur together
Systole: the time in which the heart contracts
Tachycardia: a fast heartbeat, above 100 per minute
Tachypnoea: fast breathing
Tendon: a cord that joins muscle to bone
Tetanus: an infection that cramps the muscles
Thrombosis: a blood clot within a vessel
Thyroid: the gland in the neck that sets the pace of the body
Tinnitus: ringing in the ears
Tomography: imaging of the body in slices
Tonsillitis: inflammation of the tonsils
Trachea: the windpipe
Transplantation: putting an organ of one person into another
Tremor: shaking that one cannot stop
Triage: sorting patients by how urgent they are
Tuberculosis: an infection, mostly of the lungs, by a slow bacterium
Tumour: a lump of cells that grow without need
Ulcer: an open sore of skin or lining
Ultrasound: imaging with sound waves
Urticaria: hives, an itching rash with weals
Vaccine: what trains the immune system against a germ
Vasculitis: inflammation of blood vessels
Vein: a vessel that carries blood to the heart
Ventilation: moving air in and out of the lungs
Ventricle: a lower chamber of the heart, or a space in the brain
Vertigo: the feeling that everything turns
Virus: a tiny germ that grows only within cells
X-ray: radiation that passes through soft tissue and is stopped by bone
Zone: a third of the lung on a film: upper, middle or lower
""".strip().splitlines()
)

FORMS = (
    "What is {a}?", "What is {a}?", "What does {t} mean?", "Define {t}.", "Explain {t}.", "What does the term {t} mean?", "Can you explain {t}?", "Tell me what {a} is.",
    "What is meant by {t}?", "{T}?", "Give a definition of {t}.", "Please define {t}.", "Do you know what {a} is?", "And {t}?", "Explain to me what {t} means.", "Meaning of {t}?",
)  # fmt: skip


def ask(term: str, rng: np.random.Generator) -> tuple[str, str]:
    """A question for a term, and its definition."""
    lower = term if term.startswith(("X-", "Crohn")) else term[0].lower() + term[1:]
    article = "an" if lower[0] in "aeiou" or term == "X-ray" else "a"
    named = lower if rng.random() < 0.5 else f"{article} {lower}"
    question = str(rng.choice(FORMS)).format(t=lower, T=term, a=named)
    return careless(question, rng), f"{term}: {TERMS[term]}."
